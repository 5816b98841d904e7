"""Phase 1's contexts in a checkpoint of several processes: each writes its own."""

from pathlib import Path
from typing import Any, cast

import lightning as L
import torch

from lightning_modules.checkpoint_io import save_whole
from lightning_modules.fixed_point_module import FixedPointModule


class ContextParts(L.Callback):
    """Writes the contexts of every rank but the first beside the checkpoint, which has the first's.

    Contexts are most of a checkpoint: they are neither sent nor put together. A checkpoint names
    its parts, which are written before it and outlive it by one, so that at every moment there is
    one whose parts are all there.

    Args:
        folder: of the checkpoint, seen by all ranks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._current: str | None = None

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["num_ranks"] = trainer.world_size
        if trainer.world_size == 1:
            return
        name = f"contexts_step{trainer.global_step}"
        if trainer.global_rank > 0:
            self._remove_all_but(self._current, trainer.global_rank)
            module = cast("FixedPointModule", pl_module)
            assert module.contexts is not None
            assert module.val_contexts is not None
            parts = (module.contexts.rows, module.val_contexts.rows)
            save_whole(parts, self._path(name, trainer.global_rank))
        self._current = checkpoint["context_parts"] = name
        trainer.strategy.barrier()

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.world_size == 1:
            return
        self._current = checkpoint["context_parts"]
        assert self._current is not None
        if trainer.global_rank > 0:
            path = self._path(self._current, trainer.global_rank)
            contexts = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
            cast("FixedPointModule", pl_module).restore_contexts(contexts)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._remove_all_but(self._current, trainer.global_rank)

    def _path(self, name: str, rank: int) -> Path:
        return self.folder / f"{name}_rank{rank}.pt"

    def _remove_all_but(self, name: str | None, rank: int) -> None:
        for path in self.folder.glob(f"contexts_step*_rank{rank}.pt"):
            if name is None or path != self._path(name, rank):
                path.unlink()
