"""Text as it comes equals text at the end; no half character is shown."""

import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from datamodules.text_stream import TextStream
from datamodules.tokenizer import END_OF_TEXT, train_tokenizer

TEXT = "hello wörld, naïve façade, 日本語 🙂🙃 and so on"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Few merges: most characters beyond ASCII are several tokens."""
    return train_tokenizer(["hello world, hello so and so on " * 3], 270)


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    return [*(stream.feed(token_id) for token_id in ids), stream.finish()]


def test_characters_of_several_tokens_come_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT).ids
    shown = pieces(tokenizer, ids)
    assert "".join(shown) == TEXT
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in shown)
    smile = tokenizer.encode("🙂").ids
    assert len(smile) == 4
    assert pieces(tokenizer, smile) == ["", "", "", "🙂", ""]


def test_a_text_that_ends_within_a_character_says_so(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("so 🙂").ids[:-1]
    assert "".join(pieces(tokenizer, ids)) == "so \N{REPLACEMENT CHARACTER}"


def test_random_tokens_are_what_decoding_all_at_once_makes_of_them(tokenizer: Tokenizer) -> None:
    """An untrained model writes bytes that are no text."""
    draw = random.Random(0)
    size = tokenizer.get_vocab_size()
    for _ in range(200):
        ids = [draw.randrange(size) for _ in range(40)]
        assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=False)


def test_bytes_that_never_become_a_character_are_not_held_for_ever(tokenizer: Tokenizer) -> None:
    middle = tokenizer.encode("🙂").ids[-1]
    stream = TextStream(tokenizer)
    shown = [stream.feed(middle) for _ in range(1000)]
    assert sum(len(piece) for piece in shown) >= 900
    assert "".join(stream.feed(token_id) for token_id in tokenizer.encode(" hello").ids)[-5:] == (
        "hello"
    )


def test_end_of_text_is_shown_where_it_is_fed(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("so").ids, tokenizer.token_to_id(END_OF_TEXT)]
    assert "".join(pieces(tokenizer, ids)) == "so" + END_OF_TEXT


def test_the_first_token_keeps_its_space_after_a_prompt() -> None:
    """Some decoders drop the space of a text's first word."""
    vocabulary = {"▁so": 0, "▁on": 1, "<unk>": 2}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    assert TextStream(tokenizer, [0]).feed(1) == " on"
    assert TextStream(tokenizer).feed(1) == "on"
