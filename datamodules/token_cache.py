"""Tokens of the three splits, made once and kept under a key of everything they depend on."""

import hashlib
import importlib.metadata
import io
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from config import InputError
from datamodules.corpora import open_corpus
from datamodules.splits import split_documents
from datamodules.tokenizer import end_of_text_id, load_tokenizer, train_tokenizer

Tokens = npt.NDArray[np.int32]

_DIGEST_BYTES = 32


class TokenSplits(NamedTuple):
    """Token ids of each split, documents one after the other, each closed by end-of-text.

    train, validation, test: (number of tokens,) int32; validation and test may be empty.
    num_bytes: (3,) UTF-8 bytes of the documents of train, validation and test.
    """

    train: Tokens
    validation: Tokens
    test: Tokens
    num_bytes: npt.NDArray[np.int64]
    tokenizer: Tokenizer


def load_tokens(corpus: str, tokenizer: str, vocab_size: int, cache_dir: Path) -> TokenSplits:
    """Reads the cache, or reads the corpus, trains the tokenizer and fills the cache.

    Args:
        corpus: as `open_corpus` takes it.
        tokenizer: `train`, or the path of a tokenizer.json.
        vocab_size: of the tokenizer that is trained.
        cache_dir: made where it does not exist.

    Raises:
        InputError: the corpus or the tokenizer cannot be used.
    """
    source = open_corpus(corpus)
    given = None if tokenizer == "train" else load_tokenizer(Path(tokenizer))
    tokenizer_key = f"train {vocab_size}" if given is None else given.to_str()
    path = cache_dir / "tokens" / f"{_key(source.fingerprint, tokenizer_key)}.tokens"
    cached = read_tokens(path)
    if cached is not None:
        return cached
    documents = [document.strip() for document in source.read()]
    documents = [document for document in documents if document]
    if not documents:
        raise InputError(f"--corpus {corpus!r} holds no text.")
    splits = _tokenise(documents, given, vocab_size, corpus)
    _write(path, splits)
    return splits


def _key(*parts: str) -> str:
    digest = hashlib.sha256(importlib.metadata.version("tokenizers").encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    for part in parts:
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()[:32]


def _tokenise(
    documents: list[str], given: Tokenizer | None, vocab_size: int, corpus: str
) -> TokenSplits:
    splits = split_documents(documents)
    if not splits.train or not splits.validation:
        raise InputError(
            f"--corpus {corpus!r} has {len(documents)} documents, of which {len(splits.train)} fell "
            f"to training and {len(splits.validation)} to validation; it needs more documents."
        )
    tokenizer = given or train_tokenizer(splits.train, vocab_size)
    end = end_of_text_id(tokenizer)
    return TokenSplits(
        train=_encode(tokenizer, splits.train, end),
        validation=_encode(tokenizer, splits.validation, end),
        test=_encode(tokenizer, splits.test, end),
        num_bytes=np.asarray([sum(len(text.encode()) for text in part) for part in splits]),
        tokenizer=tokenizer,
    )


def _encode(tokenizer: Tokenizer, documents: list[str], end: int) -> Tokens:
    encodings = tokenizer.encode_batch_fast(documents, add_special_tokens=False)
    parts = [np.asarray([*encoding.ids, end], dtype=np.int32) for encoding in encodings]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)


def read_tokens(path: Path) -> TokenSplits | None:
    """Reads a file of the cache; None where there is none, or its digest is not that of the rest."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    digest, archive_bytes = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(archive_bytes).digest() != digest:
        return None
    with np.load(io.BytesIO(archive_bytes), allow_pickle=False) as archive:
        return TokenSplits(
            archive["train"],
            archive["validation"],
            archive["test"],
            num_bytes=archive["num_bytes"],
            tokenizer=Tokenizer.from_str(archive["tokenizer"].tobytes().decode()),
        )


def _write(path: Path, splits: TokenSplits) -> None:
    """Written beside and renamed, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "train": splits.train,
        "validation": splits.validation,
        "test": splits.test,
        "num_bytes": splits.num_bytes,
        "tokenizer": np.frombuffer(splits.tokenizer.to_str().encode(), dtype=np.uint8),
    }
    archive = io.BytesIO()
    np.savez(archive, **arrays)  # type: ignore[arg-type]  # numpy's stub reads ** as allow_pickle
    content = archive.getvalue()
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(hashlib.sha256(content).digest() + content)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
