"""Keeps the newest state of a phase in `last.ckpt`."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Writes `last.ckpt` after every epoch, or after an optimiser step where its time has come.

    Not after an epoch's last step, which the epoch's own checkpoint follows: one from between it and
    validation would leave validation out of a run that is continued. And not amid the batches of one
    step, whose gradients no checkpoint holds.

    Args:
        folder: of the file.
        minutes: between two checkpoints; None writes one after every epoch.
    """

    def __init__(self, folder: Path, minutes: float | None = None) -> None:
        super().__init__(
            folder,
            filename="last",
            train_time_interval=None if minutes is None else timedelta(minutes=minutes),
            enable_version_counter=False,
        )

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        is_amid_a_step = (batch_idx + 1) % trainer.accumulate_grad_batches > 0
        if not trainer.is_last_batch and not is_amid_a_step:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
