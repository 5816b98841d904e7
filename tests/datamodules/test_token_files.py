"""Counts of tokens; what is written and read is tested with the cache."""

from pathlib import Path

import numpy as np
import pytest

from datamodules import token_files
from datamodules.token_files import TokenSplits, TokenWriter, count_tokens, read_tokens
from datamodules.tokenizer import train_tokenizer

VOCAB_SIZE = 265


@pytest.fixture
def splits(tmp_path: Path) -> TokenSplits:
    draw = np.random.default_rng(0)
    with TokenWriter(tmp_path, train_tokenizer(["a text of its own, " * 5], VOCAB_SIZE)) as writer:
        for _ in range(10):
            writer.append("train", draw.integers(0, VOCAB_SIZE - 1, 100).tolist(), num_bytes=300)
        writer.finish()
    found = read_tokens(tmp_path)
    assert found is not None
    return found


def test_splits_may_be_empty(splits: TokenSplits) -> None:
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1_000, 0, 0)
    assert splits.num_bytes.tolist() == [3_000, 0, 0]


def test_a_folder_that_was_not_finished_is_none(tmp_path: Path) -> None:
    with TokenWriter(tmp_path, train_tokenizer(["a text"], VOCAB_SIZE)) as writer:
        writer.append("train", [1, 2, 3], num_bytes=3)
    assert read_tokens(tmp_path) is None


@pytest.mark.parametrize("num_tokens", [0, 1, 637, 1_000])
@pytest.mark.parametrize("at_once", [7, 2**22])
def test_counts_are_those_of_the_first_tokens(
    num_tokens: int, at_once: int, splits: TokenSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_files, "_COUNTED_AT_ONCE", at_once)
    expected = [int((splits.train[:num_tokens] == i).sum()) for i in range(VOCAB_SIZE)]
    assert count_tokens(splits, num_tokens).tolist() == expected
    assert not list(splits.folder.glob("counts*"))


def test_counts_of_many_tokens_are_kept(
    splits: TokenSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = count_tokens(splits, 900)
    monkeypatch.setattr(token_files, "_KEPT_COUNTS", 500)
    first = count_tokens(splits, 900)
    other = count_tokens(splits, 800)
    monkeypatch.setattr(token_files, "_count", lambda *_: pytest.fail("counted again"))
    for counts in (first, count_tokens(splits, 900)):
        assert counts.tolist() == expected.tolist()
        assert counts.dtype == expected.dtype
    assert count_tokens(splits, 800).tolist() == other.tolist() != expected.tolist()
    assert read_tokens(splits.folder) is not None
