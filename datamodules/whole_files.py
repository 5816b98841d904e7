"""Files that are written whole or not at all."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_whole(
    path: Path, write: Callable[[BinaryIO], object], *, is_shared: bool = False
) -> None:
    """Writes beside the path, then renames: an earlier file survives whatever ends the process.

    Args:
        path: in a folder that is made where it does not exist.
        write: to a stream.
        is_shared: several processes may write it at once, each then under a name of its own. What one
            that was killed has left is only written over where it is not shared.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = f".{uuid.uuid4().hex}.part" if is_shared else ".part"
    unfinished = path.with_name(path.name + ending)
    try:
        with unfinished.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    except BaseException:
        # Of any kind, Ctrl-C too, as it is raised again: nothing unfinished stays.
        unfinished.unlink(missing_ok=True)
        raise


def write_bytes_whole(path: Path, content: bytes, *, is_shared: bool = False) -> None:
    """`write_whole` of a content that is at hand."""
    write_whole(path, lambda stream: stream.write(content), is_shared=is_shared)
