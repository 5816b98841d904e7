"""How many trials a study is to have, and which of those that several workers start it takes."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from optuna.trial import FrozenTrial, TrialState

from tuning.retries import retried_number

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Quota(Protocol):
    """How many trials a study is to have."""

    def is_met(self, trials: Sequence[FrozenTrial]) -> bool: ...

    def has_room(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether one more may be started; where not, those that run may still make room."""
        ...

    def place_of(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int | None:
        """The trial's place in the total, from 0; None where it is one too many."""
        ...


class Total(NamedTuple):
    """Finished trials in all, whoever ran them.

    Workers start trials without a common lock, so several may take what looks like the last place.
    Trial numbers, which the storage gives out one by one, then decide: a trial has the place after
    all finished ones and all unfinished ones of lower numbers. The highest-numbered trial that went
    ahead had fewer than the total before it, so never more than the total finish.
    """

    num_trials: int

    def is_met(self, trials: Sequence[FrozenTrial]) -> bool:
        return _count(trials, *FINISHED) >= self.num_trials

    def has_room(self, trials: Sequence[FrozenTrial]) -> bool:
        return _count(trials, *FINISHED, TrialState.RUNNING) < self.num_trials

    def place_of(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int | None:
        earlier = sum(
            other.state in FINISHED
            or (not other.state.is_finished() and other.number < trial.number)
            for other in trials
        )
        return earlier if earlier < self.num_trials else None


class Queue(NamedTuple):
    """The trials that were queued, and no others."""

    def is_met(self, trials: Sequence[FrozenTrial]) -> bool:
        return _count(trials, TrialState.WAITING, TrialState.RUNNING) == 0

    def has_room(self, trials: Sequence[FrozenTrial]) -> bool:
        return _count(trials, TrialState.WAITING) > 0

    def place_of(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int | None:
        if "fixed_params" not in trial.system_attrs:
            return None  # another worker took the last one between the look and the question
        first = retried_number(trial)
        return num_queued(trials[: trial.number if first is None else first])


def num_queued(trials: Sequence[FrozenTrial]) -> int:
    """How many trials were queued, each counted once however often it was repeated."""
    return sum(
        "fixed_params" in trial.system_attrs and retried_number(trial) is None for trial in trials
    )


def _count(trials: Sequence[FrozenTrial], *states: TrialState) -> int:
    return sum(trial.state in states for trial in trials)
