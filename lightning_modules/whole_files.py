"""Files that are written whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes beside the path, then renames: an earlier file survives whatever ends the process.

    Args:
        path: in a folder that is made where it does not exist.
        write: to a stream.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(path)


def save_whole(content: object, path: Path) -> None:
    """`torch.save`, whole or not at all."""
    write_whole(path, lambda stream: torch.save(content, stream))


class WholeCheckpointIO(TorchCheckpointIO):
    """Checkpoints on a local disk, however large: neither copied in memory nor read at once.

    Lightning's own puts a checkpoint together in memory first, and renames only within a disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        save_whole(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: object = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return dict(torch.load(path, map_location="cpu", mmap=True, weights_only=weights_only))
