"""A file that is being written does no harm to the one that is there."""

from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from datamodules.whole_files import write_whole
from lightning_modules.checkpoint_io import WholeCheckpointIO


def test_an_interrupted_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.ckpt"
    checkpoints = WholeCheckpointIO()
    checkpoints.save_checkpoint({"weight": torch.arange(4)}, path)

    def interrupted(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, interrupted)
    loaded = checkpoints.load_checkpoint(path, weights_only=True)
    assert torch.equal(loaded["weight"], torch.arange(4))
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_that_is_read_survives_its_successor(tmp_path: Path) -> None:
    """Contexts are mapped, not read: the next checkpoint must not change them under their reader."""
    checkpoints = WholeCheckpointIO()
    checkpoints.save_checkpoint({"contexts": torch.zeros(1000)}, tmp_path / "last.ckpt")
    loaded = checkpoints.load_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    checkpoints.save_checkpoint({"contexts": torch.ones(1000)}, tmp_path / "last.ckpt")
    assert not bool(loaded["contexts"].any())
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
