"""Documents of large corpora come out as those of small ones do: sorted by hash, none twice."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import document_sort
from datamodules.document_sort import deal_out, sorted_documents
from datamodules.splits import digest_of
from tests.datamodules.splitting import split_documents


def sort(documents: list[str], folder: Path) -> list[str]:
    deal_out((document.encode() for document in documents), folder / "documents")
    found = list(sorted_documents(folder / "documents"))
    for document in found:
        assert document.digest == digest_of(document.text)
    return [document.text.decode() for document in found]


def expected(documents: list[str]) -> list[str]:
    return sorted(set(documents), key=lambda document: digest_of(document.encode()))


def make_documents() -> list[str]:
    draw = random.Random(0)
    documents = [f"{number} " + "süß" * draw.randrange(50) for number in range(600)]
    return documents + documents[:200] + [documents[0]] * 100


@pytest.mark.parametrize("bucket_bytes", [1_500, 5_000, 2**30])
def test_order_does_not_depend_on_what_is_held_at_once(
    bucket_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_sort, "_BUCKET_BYTES", bucket_bytes)
    documents = make_documents()
    assert sort(documents, tmp_path) == expected(documents)


@settings(max_examples=10, deadline=None)
@given(documents=st.lists(st.text(max_size=20), max_size=40), seed=st.integers(0, 1000))
def test_order_and_doubles_of_the_input_do_not_matter(documents: list[str], seed: int) -> None:
    again = documents + documents[: len(documents) // 2]
    random.Random(seed).shuffle(again)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        assert sort(again, Path(one)) == sort(documents, Path(other)) == expected(documents)


def test_order_within_splits_is_the_one_that_is_meant(tmp_path: Path) -> None:
    documents = make_documents()
    found = split_documents(sort(documents, tmp_path))
    assert found == split_documents(documents)
    assert sort(documents, tmp_path) != sorted(set(documents))


def test_nothing_but_the_dealt_files_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_sort, "_BUCKET_BYTES", 700)
    deal_out((document.encode() for document in make_documents()), tmp_path)
    files = sorted(tmp_path.iterdir())
    reader = sorted_documents(tmp_path)
    next(reader)
    assert sorted(tmp_path.iterdir()) != files  # one file is dealt out again
    reader.close()
    assert sorted(tmp_path.iterdir()) == files


@pytest.mark.parametrize("documents", [[], ["one"], ["one"] * 3, [""], ["a\x00\n", "b"]])
def test_few_documents(documents: list[str], tmp_path: Path) -> None:
    assert sort(documents, tmp_path) == expected(documents)
