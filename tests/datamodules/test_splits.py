"""Splits: by content alone, 90 / 5 / 5."""

import hashlib
from collections import Counter

import pytest

from datamodules.splits import SPLITS, Split, digest_of, split_of, split_of_digest


def test_shares_are_90_5_5() -> None:
    splits = Counter(split_of(str(number)) for number in range(20_000))
    shares = [splits[name] / 20_000 for name in SPLITS]
    assert shares == pytest.approx([0.90, 0.05, 0.05], abs=0.01)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_the_split_follows_from_the_hash(name: Split) -> None:
    first = {"validation": 0, "test": 50, "train": 100}[name]
    last = {"validation": 49, "test": 99, "train": 999}[name]
    for number in range(1000):
        document = f"Überraschung {number}"
        share = int(hashlib.sha256(document.encode()).hexdigest()[:16], 16) % 1000
        assert (split_of(document) == name) == (first <= share <= last)
        assert split_of_digest(digest_of(document.encode())) == split_of(document)
