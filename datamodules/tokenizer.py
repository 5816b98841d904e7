"""The tokenizer: a byte-level BPE trained on the training split, or one that the user brings."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from config import InputError

END_OF_TEXT = "<|endoftext|>"
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
    """`<|endoftext|>` in a document is text: the token stands between documents alone."""
    tokenizer.encode_special_tokens = True
    return tokenizer


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
