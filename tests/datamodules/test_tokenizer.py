"""The tokenizer: lossless, within its size, and refused with a message where it is of no use."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from config import InputError
from datamodules.tokenizer import (
    END_OF_TEXT,
    cut,
    end_of_text_id,
    load_tokenizer,
    parse_tokenizer,
    train_tokenizer,
    vocab_size_of,
)

TEXTS = ["A: the river runs to the sea\nB: the sea never fills"] * 3 + ["über the bridge, 🍀!"]
TOKENIZER = train_tokenizer(TEXTS, 300)


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=40))
def test_round_trip(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "text",
    ["", " ", "  two  spaces ", "\n\n\t", "日本語", "e\u0301", "👩‍👩‍👧", "\x00", "A: x\nB: y"],
)
def test_round_trip_of_awkward_texts(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(alphabet="ab1' .\n\t\r\v\x1c\x85\xa0\u2028ü🍀", max_size=40),
    num_characters=st.integers(0, 8),
)
def test_pieces_have_the_tokens_of_the_whole(text: str, num_characters: int) -> None:
    pieces = list(cut(text, num_characters))
    assert "".join(pieces) == text
    tokens = [token for piece in pieces for token in TOKENIZER.encode(piece).ids]
    assert tokens == TOKENIZER.encode(text).ids


def test_long_texts_are_cut_at_line_ends() -> None:
    lines = [f"line {number}\n" for number in range(20)]
    assert list(cut("".join(lines), 0)) == lines
    assert list(cut("".join(lines), 10)) == [
        "".join(lines[number : number + 2]) for number in range(0, 20, 2)
    ]
    assert list(cut("a\n\nb \nc\n d\n", 0)) == ["a\n\nb \nc\n d\n"]


def test_merges_shorten_known_text() -> None:
    assert len(TOKENIZER.encode("the river runs to the sea").ids) < 15
    assert len(TOKENIZER.encode("qqqqqqqqqqqqqqqqqqqqqqqqq").ids) == 25


@pytest.mark.parametrize("vocab_size", [257, 262])
def test_vocabulary_has_the_size_asked_for(vocab_size: int) -> None:
    tokenizer = train_tokenizer(TEXTS, vocab_size)
    assert tokenizer.get_vocab_size(with_added_tokens=True) == vocab_size


def test_training_is_reproducible() -> None:
    assert train_tokenizer(TEXTS, 280).to_str() == train_tokenizer(TEXTS, 280).to_str()
    assert train_tokenizer(TEXTS, 280).to_str() != train_tokenizer(TEXTS[::-1][:1], 280).to_str()


def test_end_of_text_is_one_token() -> None:
    end = end_of_text_id(TOKENIZER)
    assert TOKENIZER.id_to_token(end) == END_OF_TEXT
    assert end not in TOKENIZER.encode("the river " * 20).ids


def test_saved_tokenizer_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(str(path))
    assert load_tokenizer(path).to_str() == TOKENIZER.to_str()


def test_what_a_file_says_of_truncation_and_padding_is_for_other_uses(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for_sentences = parse_tokenizer(TOKENIZER.to_str())
    for_sentences.enable_truncation(3)
    for_sentences.enable_padding()
    for_sentences.save(str(path))
    texts = ["the river", "the river " * 20]
    loaded = load_tokenizer(path).encode_batch(texts)
    assert [one.ids for one in loaded] == [TOKENIZER.encode(text).ids for text in texts]


def test_the_end_token_in_a_text_is_text_to_every_loaded_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(str(path))
    for tokenizer in (TOKENIZER, load_tokenizer(path), parse_tokenizer(TOKENIZER.to_str())):
        assert end_of_text_id(tokenizer) not in tokenizer.encode(f"a{END_OF_TEXT}b").ids


def test_the_vocabulary_reaches_to_the_largest_id(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    Tokenizer(models.BPE({"a": 0, END_OF_TEXT: 1, "b": 7}, [])).save(str(path))
    assert vocab_size_of(load_tokenizer(path)) == 8
    assert vocab_size_of(TOKENIZER) == TOKENIZER.get_vocab_size(with_added_tokens=True)


@pytest.mark.parametrize("end", [END_OF_TEXT, "</s>", "<eos>", "<|end_of_text|>", "<|im_end|>"])
def test_usual_end_tokens_are_known(end: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, end: 1}, []))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert end_of_text_id(load_tokenizer(tmp_path / "tokenizer.json")) == 1


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_tokenizer(path)
    message = str(caught.value)
    assert "--tokenizer" in message
    assert str(path) in message
    assert "\n" not in message
    return message


def test_tokenizer_without_end_of_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    Tokenizer(models.BPE({"a": 0, "b": 1}, [])).save(str(path))
    assert "end-of-text" in refusal(path)


@pytest.mark.parametrize("content", ["", "not json", "{}", '{"version": "1.0"}', '{"model": []}'])
def test_malformed_tokenizer_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    assert "tokenizer.json" in refusal(path)


def test_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "missing.json")
    assert "does not exist" in refusal(tmp_path)
