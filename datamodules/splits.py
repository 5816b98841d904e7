"""Train, validation and test: decided for each document by a hash of its own content."""

import hashlib
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_SHARES = 1000
_VALIDATION_SHARES = 50
_TEST_SHARES = 50


def split_of(document: str) -> Split:
    """The split of a document: 90 % train, 5 % validation, 5 % test, by content alone."""
    return split_of_digest(digest_of(document.encode()))


def split_of_digest(digest: bytes) -> Split:
    """The split of the document with a digest."""
    share = int.from_bytes(digest[:8]) % _SHARES
    if share < _VALIDATION_SHARES:
        return "validation"
    if share < _VALIDATION_SHARES + _TEST_SHARES:
        return "test"
    return "train"


def digest_of(document: bytes) -> bytes:
    """The hash, SHA-256 of the UTF-8 bytes, that decides a document's split and place in it."""
    return hashlib.sha256(document).digest()
