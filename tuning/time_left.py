"""How long a study will still take."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from callbacks.figures import format_duration
from tuning.display import trial_seconds


def estimate_seconds(
    finished: Sequence[FrozenTrial], num_left: int, seconds_until_timeout: float | None
) -> float:
    """Mean time of the trials so far, pruned ones at what they cost, times those left.

    Args:
        finished: complete and pruned trials; at least one.
        num_left: trials still to finish.
        seconds_until_timeout: bound on the estimate; None where there is none.
    """
    mean = sum(map(trial_seconds, finished)) / len(finished)
    seconds = mean * num_left
    return seconds if seconds_until_timeout is None else min(seconds, max(0, seconds_until_timeout))


def describe_left(
    finished: Sequence[FrozenTrial], num_left: int, seconds_until_timeout: float | None
) -> str:
    """`25 trials left, about 8 min 10 s`."""
    if num_left <= 0:
        return "no trials left"
    trials = f"{num_left} {'trial' if num_left == 1 else 'trials'} left"
    if not finished:
        return trials
    seconds = estimate_seconds(finished, num_left, seconds_until_timeout)
    return f"{trials}, about {format_duration(seconds)}"
