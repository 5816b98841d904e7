"""Files of several users and processes, and of those that end half way."""

import os
import stat
import threading
from pathlib import Path

import pytest

from datamodules.whole_files import write_bytes_whole, write_whole


@pytest.mark.parametrize("is_shared", [False, True])
def test_who_may_read_it_is_what_the_user_says(tmp_path: Path, is_shared: bool) -> None:
    """The cache's folder may be several users'."""
    before = os.umask(0o027)
    try:
        write_bytes_whole(tmp_path / "new" / "file", b"text", is_shared=is_shared)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "file").stat().st_mode) == 0o640


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_write_that_fails_leaves_nothing_of_its_own(tmp_path: Path, is_shared: bool) -> None:
    def fail(_: object) -> None:
        raise OSError("no space left on device")

    write_bytes_whole(tmp_path / "file", b"precious")
    with pytest.raises(OSError, match="no space"):
        write_whole(tmp_path / "file", fail, is_shared=is_shared)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"precious"}


def test_several_may_write_a_shared_file_at_once(tmp_path: Path) -> None:
    contents = [bytes([65 + index]) * 1_000_000 for index in range(8)]
    writers = [
        threading.Thread(
            target=write_bytes_whole, args=(tmp_path / "file", text), kwargs={"is_shared": True}
        )
        for text in contents
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() in contents
