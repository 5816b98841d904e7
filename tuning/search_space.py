"""What a study tunes: names of `Config` fields and their ranges."""

from typing import Any

import optuna

DIST_REG_WEIGHT_RANGE = (0.01, 0.99)
"""Searched on a logarithmic scale: the diversity loss starts ten times larger than the residual, and
the weights between which they change places span two decades."""


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """Values of a trial by field name."""
    weight = trial.suggest_float("dist_reg_weight", *DIST_REG_WEIGHT_RANGE, log=True)
    return {"dist_reg_weight": weight}
