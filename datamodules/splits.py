"""Train, validation and test: decided for each document by a hash of its own content."""

import hashlib
from collections.abc import Iterable
from typing import Literal, NamedTuple

Split = Literal["train", "validation", "test"]

_SHARES = 1000
_VALIDATION_SHARES = 50
_TEST_SHARES = 50


class SplitDocuments(NamedTuple):
    """Documents of each split, ordered by the hash of their content; no document twice."""

    train: list[str]
    validation: list[str]
    test: list[str]


def split_of(document: str) -> Split:
    """The split of a document: 90 % train, 5 % validation, 5 % test, by content alone."""
    share = int.from_bytes(_digest(document)[:8]) % _SHARES
    if share < _VALIDATION_SHARES:
        return "validation"
    if share < _VALIDATION_SHARES + _TEST_SHARES:
        return "test"
    return "train"


def split_documents(documents: Iterable[str]) -> SplitDocuments:
    """Splits documents; the same set in another order, or with doubles, splits the same way."""
    splits = SplitDocuments([], [], [])
    for document in sorted(set(documents), key=_digest):
        getattr(splits, split_of(document)).append(document)
    return splits


def _digest(document: str) -> bytes:
    return hashlib.sha256(document.encode()).digest()
