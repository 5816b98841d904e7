"""The splits as they are meant, in memory: what the reading of large corpora is held against."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from datamodules.splits import split_of


class SplitDocuments(NamedTuple):
    """Documents of each split, ordered by the hash of their content; no document twice."""

    train: list[str]
    validation: list[str]
    test: list[str]


def split_documents(documents: Iterable[str]) -> SplitDocuments:
    splits = SplitDocuments([], [], [])
    for document in sorted(set(documents), key=lambda text: hashlib.sha256(text.encode()).digest()):
        getattr(splits, split_of(document)).append(document)
    return splits
