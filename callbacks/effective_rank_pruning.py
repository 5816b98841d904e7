"""Prunes a trial whose contexts have collapsed into few dimensions."""

import lightning as L
import optuna

from callbacks.verdict import disqualify, record_limit
from lightning_modules import metric_names as names


class EffectiveRankPruning(L.Callback):
    """Judges the effective rank of Phase 1's last validation when training ends.

    Args:
        trial: that is disqualified.
        min_effective_rank: as a share of the context's dimensions.
    """

    LOW_RANK = "effective rank"

    def __init__(self, trial: optuna.Trial, *, min_effective_rank: float) -> None:
        self.trial = trial
        self.min_effective_rank = min_effective_rank

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stores the effective rank on the trial.

        Raises:
            optuna.TrialPruned: it is below its limit.
        """
        rank = float(trainer.callback_metrics[names.PHASE1_EFFECTIVE_RANK])
        ratio = float(trainer.callback_metrics[names.PHASE1_EFFECTIVE_RANK_RATIO])
        self.trial.set_user_attr("effective_rank", rank)
        record_limit(
            self.trial,
            "effective_rank_ratio",
            value=ratio,
            violation=self.min_effective_rank - ratio,
        )
        if ratio < self.min_effective_rank:
            message = f"{100 * ratio:.1f}% of the dimensions, below {self.min_effective_rank:.0%}"
            disqualify(self.trial, self.LOW_RANK, ratio, message)
