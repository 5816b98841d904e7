"""Ends training whose validation perplexity is no longer a number."""

import math
from pathlib import Path

import lightning as L

from lightning_modules import metric_names as names


class NonFiniteStopping(L.Callback):
    """Looks at `val_ppl` before an epoch's checkpoints are written, which then keep the epoch before.

    Lightning's own would take a perplexity that is no number for the best where it is the first.

    Args:
        best: checkpoint of the best epoch, which is told where there is one.
    """

    def __init__(self, best: Path) -> None:
        self.best = best

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raises FloatingPointError where the epoch's `val_ppl` is not finite."""
        figure = float(trainer.callback_metrics[names.VAL_PPL])
        if math.isfinite(figure):
            return
        kept = f"; the best epoch before it is {self.best}" if self.best.is_file() else ""
        raise FloatingPointError(
            f"{names.VAL_PPL} was {figure} in epoch {trainer.current_epoch + 1}{kept}"
        )
