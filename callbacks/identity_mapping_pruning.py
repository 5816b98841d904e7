"""Prunes a trial whose F hands its context back, or does not look at the token."""

import lightning as L
import optuna

from callbacks.verdict import disqualify, record_limit
from lightning_modules import metric_names as names


class IdentityMappingPruning(L.Callback):
    """Judges Phase 1's last validation when training ends.

    Args:
        trial: that is disqualified.
        threshold: mean |cosine| of a context and the next above which F is an identity mapping.
        min_token_sensitivity: share of the context that must change when its token is swapped.
    """

    IDENTITY_MAPPING = "identity mapping"
    TOKEN_BLINDNESS = "token blindness"

    def __init__(
        self, trial: optuna.Trial, *, threshold: float, min_token_sensitivity: float
    ) -> None:
        self.trial = trial
        self.threshold = threshold
        self.min_token_sensitivity = min_token_sensitivity

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stores both figures on the trial.

        Raises:
            optuna.TrialPruned: one of them is beyond its limit.
        """
        cosine = float(trainer.callback_metrics[names.PHASE1_CONTEXT_COSINE])
        sensitivity = float(trainer.callback_metrics[names.PHASE1_TOKEN_SENSITIVITY])
        record_limit(self.trial, "context_cosine", value=cosine, violation=cosine - self.threshold)
        record_limit(
            self.trial,
            "token_sensitivity",
            value=sensitivity,
            violation=self.min_token_sensitivity - sensitivity,
        )
        if cosine > self.threshold:
            message = f"|cos| {cosine:.3f}, above {self.threshold:.3f}"
            disqualify(self.trial, self.IDENTITY_MAPPING, cosine, message)
        if sensitivity < self.min_token_sensitivity:
            message = f"sensitivity {sensitivity:.4f}, below {self.min_token_sensitivity:.4f}"
            disqualify(self.trial, self.TOKEN_BLINDNESS, sensitivity, message)
