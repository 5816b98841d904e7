"""Trials whose run ended without a result: found, and queued again."""

import copy
import warnings

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial

_MEASURED = ("constraints:", "completed_rung_")
"""How Optuna's own attributes of a trial begin that tell what was measured; the others tell of its draw."""


def queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queues the parameters of a trial whose process died, once."""
    _retry(study, trial, max_retry=1)


def queue_interrupted(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queues the parameters of a trial that was stopped from outside, however often it was."""
    _retry(study, trial, max_retry=None)


def _retry(study: optuna.Study, trial: FrozenTrial, max_retry: int | None) -> None:
    trial = copy.deepcopy(trial)
    # What was measured belongs to the run that ended: a constraint or rung that is there is not set again.
    trial.user_attrs = {}
    trial.system_attrs = {
        name: value for name, value in trial.system_attrs.items() if not name.startswith(_MEASURED)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        RetryHeartbeatStaleTrialCallback(max_retry)(study, trial)


def retried_number(trial: FrozenTrial) -> int | None:
    """The number of the trial that this one repeats; None where it repeats none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)


def retry_history(trial: FrozenTrial) -> list[int]:
    """The numbers of all trials that this one repeats, the first one first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return RetryHeartbeatStaleTrialCallback.retry_history(trial)


def fail_silent_trials(study: optuna.Study) -> None:
    """Fails the trials whose heartbeat has stopped, and queues them again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
