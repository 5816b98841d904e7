"""Splits: by content alone, 90 / 5 / 5."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.splits import Split, split_of
from tests.datamodules.splitting import split_documents

texts = st.lists(st.text(max_size=20), max_size=40)


@settings(max_examples=30, deadline=None)
@given(documents=texts, seed=st.integers(0, 1000))
def test_order_and_doubles_do_not_matter(documents: list[str], seed: int) -> None:
    again = documents + documents[: len(documents) // 2]
    random.Random(seed).shuffle(again)
    assert split_documents(again) == split_documents(documents)


@settings(max_examples=30, deadline=None)
@given(documents=texts)
def test_every_document_is_in_one_split_once(documents: list[str]) -> None:
    splits = split_documents(documents)
    everything = [*splits.train, *splits.validation, *splits.test]
    assert sorted(everything) == sorted(set(documents))
    for name, part in zip(splits._fields, splits, strict=True):
        assert all(split_of(document) == name for document in part)


def test_a_document_stays_in_its_split_when_others_come() -> None:
    few = split_documents(f"document {i}" for i in range(300))
    many = split_documents(f"document {i}" for i in range(900))
    for small, large in zip(few, many, strict=True):
        assert small
        assert set(small) < set(large)
        assert [document for document in large if document in set(small)] == small


def test_shares_are_90_5_5() -> None:
    splits = split_documents(str(number) for number in range(20_000))
    shares = [len(part) / 20_000 for part in splits]
    assert shares == pytest.approx([0.90, 0.05, 0.05], abs=0.01)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_the_split_follows_from_the_hash(name: Split) -> None:
    first = {"validation": 0, "test": 50, "train": 100}[name]
    last = {"validation": 49, "test": 99, "train": 999}[name]
    for number in range(1000):
        document = f"Überraschung {number}"
        share = int(hashlib.sha256(document.encode()).hexdigest()[:16], 16) % 1000
        assert (split_of(document) == name) == (first <= share <= last)


def test_order_within_a_split_is_not_that_of_the_input() -> None:
    documents = [f"document {i:03}" for i in range(200)]
    train = split_documents(documents).train
    assert train != sorted(train)
    assert train != sorted(train, reverse=True)
