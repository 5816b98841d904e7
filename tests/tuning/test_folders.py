"""Folders are made where there are none, and refused where they take no file."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from config import InputError
from tuning.folders import require_writable_folder


@pytest.mark.parametrize("name", [".", "new", "new/of/several"])
def test_a_folder_is_made_and_left_empty(tmp_path: Path, name: str) -> None:
    require_writable_folder("--run-dir", tmp_path / name)
    require_writable_folder("--run-dir", tmp_path / name)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (tmp_path / name).is_dir()


@pytest.mark.parametrize("name", ["file", "file/folder", "/proc/new"])
def test_what_cannot_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(InputError) as refused:
        require_writable_folder("--run-dir", tmp_path / name)
    told = str(refused.value)
    assert told.startswith(f"--run-dir {tmp_path / name} cannot be written to: ")
    assert "\n" not in told
    assert (tmp_path / "file").read_text() == "precious"


def test_a_folder_that_takes_no_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(InputError, match=r"--runs-dir .* cannot be written to: Permission denied"):
        require_writable_folder("--runs-dir", tmp_path)
