"""How a callback disqualifies a trial so that report, dashboard and sampler know why."""

import math
from typing import NoReturn

import optuna

PRUNING_REASON = "pruning_reason"
PRUNING_VALUE = "pruning_value"

NON_FINITE = "non-finite loss"
OUT_OF_MEMORY = "out of memory"
MEDIAN = "median of earlier trials"


def record_limit(trial: optuna.Trial, name: str, *, value: float, violation: float) -> None:
    """Stores a measured value and by how much it breaks its limit (0 or less: kept).

    The violation becomes an Optuna constraint, so that the sampler learns from the distance.

    Raises:
        optuna.TrialPruned: the value is not a number.
    """
    if math.isnan(violation):
        disqualify(trial, NON_FINITE, value, f"{name} is not a number")
    trial.set_user_attr(name, value)
    trial.set_constraint(name, violation)


def disqualify(trial: optuna.Trial, reason: str, value: float, message: str) -> NoReturn:
    """Stores the reason and the measured value on the trial, and prunes it.

    Raises:
        optuna.TrialPruned: always.
    """
    trial.set_user_attr(PRUNING_REASON, reason)
    # JSON, which storages keep attributes in, has no NaN: the text of the number is kept.
    trial.set_user_attr(PRUNING_VALUE, value if math.isfinite(value) else str(value))
    raise optuna.TrialPruned(f"{reason}: {message}")
