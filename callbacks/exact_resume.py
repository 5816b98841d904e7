"""What a continued run needs beside Lightning's own checkpoint to equal one that was left alone."""

from typing import Any

import lightning as L

from datamodules.token_loader import TrainingLoader


class ExactResume(L.Callback):
    """Goes on amid an epoch with the batch after the last one, and stays stopped when it was.

    Lightning's Trainer restores its counters, and then gives out the epoch's first batches again.
    """

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["should_stop"] = trainer.should_stop

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        trainer.should_stop = checkpoint["should_stop"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.fit_loop.restarted_mid_epoch:
            loader = trainer.train_dataloader
            assert isinstance(loader, TrainingLoader)
            num_batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
            loader.load_state_dict({"num_batches": num_batches})
