"""How long a study will still take, by what pruned and complete trials have cost so far."""

import bisect
import enum
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from optuna.trial import FrozenTrial, TrialState

from callbacks.figures import format_duration
from tuning.display import trial_seconds
from tuning.samplers import NUM_STARTUP_TRIALS

_PHASE1_PRIOR_TRIALS = 2
"""Half of them pruned: Laplace's rule of succession."""
_PHASE2_PRIOR_TRIALS = 10
"""Half of them pruned, as a median does; ten, as recorded studies scatter by 0.16 around that."""


class Outcome(enum.Enum):
    """How far a finished trial came, which is what its time depends on."""

    COMPLETE = enum.auto()
    PRUNED_IN_PHASE1 = enum.auto()
    PRUNED_IN_PHASE2 = enum.auto()

    @classmethod
    def of(cls, trial: FrozenTrial) -> "Outcome":
        """Outcome of a complete or pruned trial."""
        if trial.state == TrialState.COMPLETE:
            return cls.COMPLETE
        reached_phase2 = "phase2_seconds" in trial.user_attrs
        return cls.PRUNED_IN_PHASE2 if reached_phase2 else cls.PRUNED_IN_PHASE1


def estimate_seconds(
    finished: Sequence[FrozenTrial],
    num_left: int,
    *,
    num_workers: int = 1,
    running_seconds: Sequence[float] = (),
    num_startup_trials: float = NUM_STARTUP_TRIALS,
) -> float:
    """Expected wall time until the last trial ends, in seconds.

    Workers share the trials' time evenly. One trial cannot be shared: the result is no less than
    the rest of any running trial and, where one has not started, than a trial's time.

    Args:
        finished: complete and pruned trials in the order of their numbers; at least one.
        num_left: trials not finished, running ones included.
        num_workers: trials that run at a time; 1 or more.
        running_seconds: seconds since the start of each running trial.
        num_startup_trials: complete trials that the pruner waits for before it prunes; infinity where
            there is no pruner.

    Raises:
        ValueError: no trial has finished.
    """
    if not finished:
        raise ValueError("finished is empty; an estimate needs at least one trial")
    if num_left <= 0:
        return 0.0
    costs = _costs(finished, num_startup_trials)
    num_to_start = max(0, num_left - len(running_seconds))
    rests = [costs.rest_of(elapsed) for elapsed in running_seconds]
    shared = (costs.of_next(num_to_start) + sum(rests)) / num_workers
    return max(shared, costs.of_next(min(1, num_to_start)), *rests)


def describe_left(
    finished: Sequence[FrozenTrial],
    num_left: int,
    *,
    num_workers: int = 1,
    running_seconds: Sequence[float] = (),
    seconds_until_timeout: float | None = None,
    num_startup_trials: float = NUM_STARTUP_TRIALS,
) -> str:
    """`25 trials left, about 8 min 10 s`; tells how many of them end before the timeout.

    Args:
        finished: as for `estimate_seconds`, but may be empty: then no time is told.
        num_left: see `estimate_seconds`.
        num_workers: see `estimate_seconds`.
        running_seconds: see `estimate_seconds`.
        seconds_until_timeout: seconds after which running trials are cut off; None: no timeout.
        num_startup_trials: see `estimate_seconds`.
    """
    if num_left <= 0:
        return "no trials left"

    def seconds_for(num_trials: int) -> float:
        return estimate_seconds(
            finished,
            num_trials,
            num_workers=num_workers,
            running_seconds=running_seconds,
            num_startup_trials=num_startup_trials,
        )

    text = f"{num_left} {'trial' if num_left == 1 else 'trials'} left"
    num_allowed = num_left
    if seconds_until_timeout is not None and seconds_until_timeout <= 0:
        num_allowed = 0
    elif seconds_until_timeout is not None and finished:
        num_allowed = bisect.bisect_right(
            range(1, num_left + 1), seconds_until_timeout, key=seconds_for
        )
    if num_allowed == 0:
        return f"{text}, of which the timeout allows none"
    if not finished:
        return text
    if num_allowed == num_left:
        return f"{text}, about {format_duration(seconds_for(num_left))}"
    return f"{text}, of which the timeout allows about {num_allowed}"


class _Costs(NamedTuple):
    """Seconds of a trial by its outcome, and how likely each outcome is."""

    seconds: dict[Outcome, float]
    startup_shares: dict[Outcome, float]
    """Before the pruner prunes."""
    shares: dict[Outcome, float]
    num_startup_left: float
    """Trials until the pruner prunes, those that Phase 1 prunes included."""

    def of_next(self, num_trials: int) -> float:
        """Expected seconds of the next trials, one after the other."""
        num_startup = min(num_trials, self.num_startup_left)
        return num_startup * self._mean(self.startup_shares) + (
            num_trials - num_startup
        ) * self._mean(self.shares)

    def rest_of(self, elapsed: float) -> float:
        """Expected seconds that a running trial still takes: no outcome that it has outlived."""
        shares = self.startup_shares if self.num_startup_left else self.shares
        possible = {k: share for k, share in shares.items() if self.seconds[k] > elapsed}
        total = sum(possible.values())
        return self._mean(possible) / total - elapsed if total else 0.0

    def _mean(self, shares: dict[Outcome, float]) -> float:
        return sum(share * self.seconds[outcome] for outcome, share in shares.items())


def _costs(finished: Sequence[FrozenTrial], num_startup_trials: float) -> _Costs:
    num_complete = 0
    ends_in_phase2: list[Outcome] = []  # while the pruner prunes
    for trial in finished:
        outcome = Outcome.of(trial)
        if num_complete >= num_startup_trials and outcome != Outcome.PRUNED_IN_PHASE1:
            ends_in_phase2.append(outcome)
        num_complete += outcome == Outcome.COMPLETE
    outcomes = [Outcome.of(trial) for trial in finished]
    phase1 = _share(outcomes, Outcome.PRUNED_IN_PHASE1, _PHASE1_PRIOR_TRIALS)
    phase2 = _share(ends_in_phase2, Outcome.PRUNED_IN_PHASE2, _PHASE2_PRIOR_TRIALS)
    return _Costs(
        seconds=_seconds_by_outcome(finished),
        startup_shares={Outcome.PRUNED_IN_PHASE1: phase1, Outcome.COMPLETE: 1 - phase1},
        shares={
            Outcome.PRUNED_IN_PHASE1: phase1,
            Outcome.PRUNED_IN_PHASE2: (1 - phase1) * phase2,
            Outcome.COMPLETE: (1 - phase1) * (1 - phase2),
        },
        num_startup_left=max(0, num_startup_trials - num_complete) / (1 - phase1),
    )


def _share(outcomes: Sequence[Outcome], outcome: Outcome, num_prior: int) -> float:
    return (outcomes.count(outcome) + num_prior / 2) / (len(outcomes) + num_prior)


def _seconds_by_outcome(finished: Sequence[FrozenTrial]) -> dict[Outcome, float]:
    """Medians, as the first trial is slow; where an outcome has no trial, what is nearest to it."""
    known: dict[Outcome, list[float]] = defaultdict(list)
    for trial in finished:
        known[Outcome.of(trial)].append(trial_seconds(trial))
    phase1_seconds = [trial.user_attrs.get("phase1_seconds", 0.0) for trial in finished]
    phase1 = statistics.median(known[Outcome.PRUNED_IN_PHASE1] or phase1_seconds)
    complete = statistics.median(
        known[Outcome.COMPLETE] or [max(trial_seconds(trial) for trial in finished)]
    )
    phase2 = statistics.median(known[Outcome.PRUNED_IN_PHASE2] or [(phase1 + complete) / 2])
    return {
        Outcome.PRUNED_IN_PHASE1: phase1,
        Outcome.PRUNED_IN_PHASE2: phase2,
        Outcome.COMPLETE: complete,
    }
