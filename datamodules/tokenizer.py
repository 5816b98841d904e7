"""The tokenizer: a byte-level BPE trained on the training split, or one that the user brings."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from config import InputError

END_OF_TEXT = "<|endoftext|>"
_LINE_END = re.compile(r"(?<=\S)\n(?=\S)")
_KNOWN_END_TOKENS = (END_OF_TEXT, "</s>", "<eos>", "<|end_of_text|>", "<|im_end|>")


def train_tokenizer(documents: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains a byte-level BPE; the vocabulary is smaller where the text has no more merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return _taking_text_as_it_is(tokenizer)


def cut(text: str, num_characters: int) -> Iterator[str]:
    """Pieces of a text, whose tokens in the tokenizer that is trained here are those of the whole.

    They end at single line ends between text, which are words of their own to it, and are longer
    than asked for up to the next one.
    """
    start = 0
    while found := _LINE_END.search(text, start + num_characters):
        yield text[start : found.end()]
        start = found.end()
    yield text[start:]


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads a tokenizer.json.

    Raises:
        InputError: it is missing, no tokenizer, or has no end-of-text token.
    """
    if not path.is_file():
        raise InputError(f"--tokenizer {str(path)!r} does not exist; it must be `train` or a file.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The library raises bare `Exception` for every malformed file.
    except Exception as error:
        raise InputError(f"--tokenizer {str(path)!r} is no tokenizer.json: {error}.") from error
    end_of_text_id(tokenizer, str(path))
    return _taking_text_as_it_is(tokenizer)


def parse_tokenizer(text: str) -> Tokenizer:
    """A tokenizer from what its `to_str` gave."""
    return _taking_text_as_it_is(Tokenizer.from_str(text))


def _taking_text_as_it_is(tokenizer: Tokenizer) -> Tokenizer:
    """Has a document encoded whole, and nothing but it.

    `<|endoftext|>` in it is text: the token stands between documents alone. What a tokenizer.json says
    of truncation and padding is for other uses of it.
    """
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def vocab_size_of(tokenizer: Tokenizer) -> int:
    """V: the largest id, added tokens' included, plus 1. Ids may have gaps."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def end_of_text_id(tokenizer: Tokenizer, name: str = "train") -> int:
    """The id of the token that stands between documents.

    Raises:
        InputError: the tokenizer has none of the usual ones.
    """
    for token in _KNOWN_END_TOKENS:
        token_id = tokenizer.token_to_id(token)
        if token_id is not None:
            return int(token_id)
    raise InputError(
        f"--tokenizer {name!r} has no end-of-text token; it needs one of {_KNOWN_END_TOKENS}."
    )
