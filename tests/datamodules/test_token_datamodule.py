"""Batches of both phases: what they hold, and what their order depends on."""

import dataclasses
import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from config import Config, InputError
from datamodules.token_cache import load_tokens
from datamodules.token_datamodule import TokenDataModule
from datamodules.tokenizer import end_of_text_id
from tests.datamodules.splitting import SplitDocuments, split_documents

LENGTH = 16


def make_documents() -> list[str]:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=4)) for _ in range(50)]
    return [" ".join(draw.choices(words, k=12)) for _ in range(600)]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "corpus.txt").write_text("\n".join(make_documents()), encoding="utf-8")
    return Config(
        corpus=str(folder / "corpus.txt"),
        cache_dir=str(folder / "cache"),
        vocab_size=320,
        num_samples=50,
        max_seq_length=LENGTH,
        batch_size=8,
    )


def make_data(config: Config, **changes: object) -> TokenDataModule:
    data = TokenDataModule(dataclasses.replace(config, **changes))  # type: ignore[arg-type]  # the names are checked by replace
    data.setup()
    return data


def order(data: TokenDataModule, epoch: int) -> list[list[int]]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]  # a DistributedSampler
    return [batch.row_index.tolist() for batch in loader]


def documents_in(data: TokenDataModule, rows: Tensor) -> list[str]:
    """The documents that stand whole in consecutive rows."""
    end = end_of_text_id(data.tokenizer)
    texts = data.tokenizer.decode(rows.flatten().tolist(), skip_special_tokens=False)
    return texts.split(data.tokenizer.id_to_token(end))[:-1]


@pytest.fixture(scope="module")
def splits() -> SplitDocuments:
    return split_documents(make_documents())


def test_training_batches_have_their_shape(config: Config) -> None:
    batches = list(make_data(config).train_dataloader())
    assert [tuple(batch.tokens.shape) for batch in batches] == [(8, LENGTH)] * 6 + [(2, LENGTH)]
    for batch in batches:
        assert batch.row_index.shape == batch.tokens.shape[:1]
        assert batch.tokens.dtype == batch.row_index.dtype == torch.int64


def test_index_is_the_rows_number(config: Config) -> None:
    data = make_data(config)
    for rows, loader in (
        (data.train_rows, data.train_dataloader()),
        (data.val_rows, data.val_dataloader()),
        (data.test_rows, data.test_dataloader()),
    ):
        seen = []
        for batch in loader:
            assert torch.equal(batch.tokens, rows.tokens[batch.row_index])
            seen += batch.row_index.tolist()
        assert sorted(seen) == list(range(len(rows)))
        assert len(rows) > 0


def test_rows_are_consecutive_pieces_of_the_split(config: Config, splits: SplitDocuments) -> None:
    data = make_data(config, num_samples=100_000)
    for name, rows in (("train", data.train_rows), ("validation", data.val_rows)):
        documents = documents_in(data, rows.tokens)
        expected = getattr(splits, name)
        assert documents == expected[: len(documents)]
        assert len(documents) > 0.9 * len(expected)
    assert documents_in(data, data.test_rows.tokens)[0] == splits.test[0]


def test_no_validation_text_is_trained_on(config: Config) -> None:
    data = make_data(config, num_samples=100_000)
    training = set(documents_in(data, data.train_rows.tokens))
    validation = set(documents_in(data, data.val_rows.tokens))
    test = set(documents_in(data, data.test_rows.tokens))
    assert min(len(validation), len(test)) > 10
    assert len(training) > 400
    assert training.isdisjoint(validation | test)
    assert validation.isdisjoint(test)


def test_fewer_samples_are_the_first_of_more(config: Config) -> None:
    few, many = make_data(config, num_samples=7), make_data(config, num_samples=200)
    assert len(few.train_rows) == 7
    assert len(many.train_rows) == 200
    assert torch.equal(few.train_rows.tokens, many.train_rows.tokens[:7])


def test_fewer_samples_than_asked_where_the_corpus_has_fewer(config: Config) -> None:
    everything = make_data(config, num_samples=10_000_000)
    assert 200 < len(everything.train_rows) < 10_000


@pytest.mark.parametrize("changes", [{"num_samples": 7}, {"random_seed": 1}, {"batch_size": 3}])
def test_validation_is_always_the_same(config: Config, changes: dict[str, int]) -> None:
    usual, other = make_data(config), make_data(config, **changes)
    assert torch.equal(usual.val_rows.tokens, other.val_rows.tokens)
    batches = list(other.val_dataloader())
    assert torch.equal(torch.cat([batch.tokens for batch in batches]), usual.val_rows.tokens)


def test_order_follows_from_seed_and_epoch(config: Config) -> None:
    torch.manual_seed(1)
    first = [order(make_data(config), epoch) for epoch in range(3)]
    torch.manual_seed(2)
    data = make_data(config)
    again = [order(data, epoch) for epoch in (2, 0, 1)]
    assert [again[1], again[2], again[0]] == first
    other = [order(make_data(config, random_seed=7), epoch) for epoch in range(3)]
    assert len({str(epoch) for epoch in first + other}) == 6


def test_training_order_is_shuffled(config: Config) -> None:
    flat = [index for batch in order(make_data(config), 0) for index in batch]
    assert flat != sorted(flat)


@pytest.mark.parametrize("num_rows", [1, 5])
def test_number_of_validation_sequences_may_be_set(config: Config, num_rows: int) -> None:
    data = make_data(config, num_val_samples=num_rows)
    assert len(data.val_rows) == num_rows
    assert data.num_val_tokens == num_rows * LENGTH


def test_token_counts_are_those_of_the_training_rows(config: Config) -> None:
    data = make_data(config)
    counts = data.token_counts()
    assert len(counts) == data.vocab_size == 320
    expected = Counter(data.train_rows.tokens.flatten().tolist())
    assert {i: count for i, count in enumerate(counts.tolist()) if count} == dict(expected)


def test_tokens_are_within_the_vocabulary(config: Config) -> None:
    data = make_data(config, num_samples=100_000)
    for rows in (data.train_rows, data.val_rows, data.test_rows):
        assert 0 <= rows.tokens.min() <= rows.tokens.max() < data.vocab_size


def test_a_tokenizer_whose_ids_have_gaps(config: Config, tmp_path: Path) -> None:
    stored = json.loads(make_data(config).tokenizer.to_str())
    vocabulary = stored["model"]["vocab"]
    vocabulary |= {piece: token_id + 100 for piece, token_id in vocabulary.items() if token_id > 90}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(stored), encoding="utf-8")
    data = make_data(config, tokenizer=str(path), num_samples=1000)
    assert data.vocab_size == len(data.token_counts()) == 420
    assert data.train_rows.tokens.max() > 320


def test_description_tells_the_sizes(config: Config) -> None:
    data = make_data(config)
    description = data.describe()
    assert f"training 50 x {LENGTH} = 800 tokens" in description
    assert f"validation {len(data.val_rows)} x {LENGTH} = {data.num_val_tokens:,} " in description
    assert "vocabulary 320" in description
    assert "\n" not in description


def test_second_setup_changes_nothing(config: Config) -> None:
    data = make_data(config)
    rows = data.train_rows
    data.setup("validate")
    assert data.train_rows is rows


def test_too_long_sequences_are_refused(config: Config) -> None:
    with pytest.raises(InputError, match=r"^--corpus .* tokens for .*--max-seq-length 100000\.$"):
        make_data(config, max_seq_length=100_000)


def test_all_samples_are_the_full_rows_of_the_split(config: Config) -> None:
    everything = make_data(config, num_samples=None)
    most = make_data(config, num_samples=10_000_000)
    assert torch.equal(everything.train_rows.tokens, most.train_rows.tokens)
    assert len(everything.train_rows) > 200


def test_rows_come_from_the_map_in_parts_and_by_index(config: Config) -> None:
    rows = make_data(config, num_samples=200).train_rows
    assert rows.shape == (200, LENGTH)
    assert rows.num_tokens == rows.tokens.numel() == 200 * LENGTH
    assert torch.equal(torch.cat(list(rows.parts())), rows.tokens)
    index = torch.tensor([3, 199, 3, 0])
    assert torch.equal(rows.take(index), rows.tokens[index])
    assert rows.take(index).dtype == torch.int64


@pytest.fixture(scope="session")
def default_data(tmp_path_factory: pytest.TempPathFactory) -> TokenDataModule:
    return make_data(Config(cache_dir=str(tmp_path_factory.mktemp("chitchat"))))


def test_default_corpus_has_validation_tokens_enough(default_data: TokenDataModule) -> None:
    config = default_data.config
    assert default_data.num_val_tokens >= 8 * config.context_dim
    assert default_data.num_val_tokens >= 8_192
    assert default_data.num_val_tokens < 8_192 + config.max_seq_length


def test_default_corpus_fills_what_is_asked_for(default_data: TokenDataModule) -> None:
    config = default_data.config
    assert default_data.vocab_size == config.vocab_size
    assert default_data.train_rows.tokens.shape == (config.num_samples, config.max_seq_length)
    assert default_data.tokenizer.decode(default_data.train_rows.tokens[0].tolist()).startswith(
        "A:"
    )


DEFAULT_TOKENS = {
    "train": "f5c8cc59f538803611ecd20928b43dcfb9f4d0530e41746ea4033ca1e17d43d5",
    "validation": "8ff900704401cd9b3e6211bdaf084e93c265b6c205100c8e6180e875aafca81e",
    "test": "1dbff48fef6327c2b699182506e5104b750d5b6e26ade51c56661740ab69db77",
}
"""SHA-256 of the default corpus's token ids, four bytes each: what published figures rest on."""


def test_default_corpus_has_the_tokens_of_the_published_figures(
    default_data: TokenDataModule,
) -> None:
    config = default_data.config
    splits = load_tokens("chitchat", "train", config.vocab_size, Path(config.cache_dir))
    for name, digest in DEFAULT_TOKENS.items():
        tokens = getattr(splits, name).astype("<i4")
        assert hashlib.sha256(tokens.tobytes()).hexdigest() == digest
    assert splits.num_bytes.tolist() == [10_651_035, 799_276, 563_991]
