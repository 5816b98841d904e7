"""Digests of files: they follow the content; those of large files are computed once."""

import os
from pathlib import Path

import pytest

from config import InputError
from datamodules import fingerprint
from datamodules.fingerprint import digest_files


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were read; all count as large."""
    found: list[Path] = []
    digest = fingerprint._digest
    monkeypatch.setattr(fingerprint, "_KEPT_BYTES", 0)
    monkeypatch.setattr(
        fingerprint, "_digest", lambda files, size: found.extend(files) or digest(files, size)
    )
    return found


def write(path: Path, content: str, mtime: int) -> Path:
    path.write_text(content, encoding="utf-8")
    os.utime(path, (mtime, mtime))
    return path


def test_digest_of_large_files_is_computed_once(tmp_path: Path, reads: list[Path]) -> None:
    files = [write(tmp_path / name, name, 1) for name in ("a.txt", "b.txt")]
    first = digest_files(files, tmp_path / "cache")
    assert digest_files(files, tmp_path / "cache") == first
    assert reads == files
    assert digest_files(files, tmp_path / "other cache") == first


@pytest.mark.parametrize(
    ("content", "mtime"), [("two", 2), ("two", 1), ("longer", 1)], ids=["time", "same time", "size"]
)
def test_changed_files_are_read_again(
    content: str, mtime: int, tmp_path: Path, reads: list[Path]
) -> None:
    file = write(tmp_path / "a.txt", "one", 1)
    first = digest_files([file], tmp_path / "cache")
    write(tmp_path / "a.txt", content, mtime)
    assert digest_files([file], tmp_path / "cache") != first
    assert len(reads) == 2


def test_small_files_are_always_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "one", 1)
    digest_files([file], tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_suffixes_and_borders_of_files_count(tmp_path: Path) -> None:
    seen = set()
    for names, contents in (
        (("a.txt", "b.txt"), ("one", "two")),
        (("a.txt", "b.txt"), ("onet", "wo")),
        (("a.txt", "b.jsonl"), ("one", "two")),
    ):
        files = [write(tmp_path / n, c, 1) for n, c in zip(names, contents, strict=True)]
        seen.add(digest_files(files, tmp_path))
    assert len(seen) == 3


def test_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--corpus: .*gone\.txt cannot be read: No such file"):
        digest_files([tmp_path / "gone.txt"], tmp_path)
