"""Checkpoints that are written whole or not at all, and mapped when they are read."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from datamodules.whole_files import write_whole


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
