"""Ends Phase 1 when its contexts have converged."""

import lightning as L

from lightning_modules import metric_names as names


class ConvergenceStopping(L.Callback):
    """Stops after the first sweep whose converged ratio reaches `min_converged_ratio`.

    The first sweep itself does not count: it starts from zeros, and nothing has been learnt yet.
    """

    def __init__(self, min_converged_ratio: float) -> None:
        self.min_converged_ratio = min_converged_ratio

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        converged_ratio = trainer.callback_metrics[names.PHASE1_CONVERGED_RATIO]
        if trainer.current_epoch > 0 and converged_ratio >= self.min_converged_ratio:
            trainer.should_stop = True
