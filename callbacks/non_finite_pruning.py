"""Prunes a trial whose loss is no longer a number."""

import math

import lightning as L
import optuna

from callbacks.verdict import NON_FINITE, disqualify, record_limit


class NonFinitePruning(L.Callback):
    """Looks at one figure after every epoch that has logged it.

    Args:
        trial: that is disqualified.
        monitor: name of a logged loss or perplexity.
    """

    def __init__(self, trial: optuna.Trial, *, monitor: str) -> None:
        self.trial = trial
        self.monitor = monitor

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._judge(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._judge(trainer)

    def _judge(self, trainer: L.Trainer) -> None:
        figure = trainer.callback_metrics.get(self.monitor)
        if figure is None or math.isfinite(float(figure)):
            return
        record_limit(self.trial, f"{self.monitor} is finite", value=0.0, violation=1.0)
        message = f"{self.monitor} was {float(figure)} in epoch {trainer.current_epoch}"
        disqualify(self.trial, NON_FINITE, float(figure), message)
