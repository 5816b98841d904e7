"""Runs a study's trials in this process, beside any number of other workers of the same study."""

import datetime
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from tuning.quota import Quota
from tuning.retries import (
    fail_silent_trials,
    queue_again,
    queue_interrupted,
    retry_history,
)
from tuning.signals import raise_if_lost
from tuning.time_limit import TimeoutReached, TrialTimeoutError, time_limit

WORKER = "worker"
TRIAL_TIMEOUT = "trial_timeout"
"""Attribute of a trial that took too long: the limit."""
INTERRUPTED = "interrupted"
"""Attribute of a failed trial that was stopped from outside: by what."""
TIMEOUT, SIGNAL, SURPLUS = "timeout", "signal", "not needed"

_MAX_FAILURES_IN_A_ROW = 3
_MAX_TIMEOUTS_IN_A_ROW = 20
_POLL_SECONDS = 0.3


class RepeatedFailureError(RuntimeError):
    """Several trials in a row ended with an exception that is a bug, or many took too long."""


class Limits(NamedTuple):
    """When this call ends, on the clock of `time.monotonic`, and how long a trial may take, in seconds."""

    deadline: float | None = None
    trial_seconds: float | None = None

    @property
    def is_over(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline


NO_LIMITS = Limits()


class Follower(Protocol):
    """Is told of every trial."""

    def started(self, study: optuna.Study, trial: optuna.Trial, place: int) -> None: ...

    def ended(self, study: optuna.Study, trial: FrozenTrial) -> None: ...


def run_trials(
    study: optuna.Study,
    objective: Callable[[optuna.Trial], float],
    quota: Quota,
    limits: Limits,
    follower: Follower,
) -> None:
    """Runs trials until the quota is met or the time is over.

    A trial that is cut off by the time or by a signal is stored as failed and queued again.

    Raises:
        RepeatedFailureError: three trials in a row failed by themselves.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    loop = _Loop(study, objective, quota, limits, follower)
    while not quota.is_met(study.get_trials(deepcopy=False)) and not limits.is_over:
        if quota.has_room(study.get_trials(deepcopy=False)):
            loop.run_one()
            continue
        # Others run the last ones; one of them may fail, or die and be found by its silence.
        fail_silent_trials(study)
        time.sleep(_POLL_SECONDS)


def name_of(pid: int) -> str:
    """`host:pid` of a process on this machine, which is how a trial names its worker."""
    return f"{socket.gethostname()}:{pid}"


def end_trials_of(study: optuna.Study, worker: str) -> list[int]:
    """Fails and queues again what a process that is gone was running; the trials' numbers."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    lost = [trial for trial in running if trial.user_attrs.get(WORKER) == worker]
    return [trial.number for trial in lost if end_trial(study, trial)]


def end_trial(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Fails a running trial and queues it again; False where it has ended meanwhile."""
    try:
        # Not `study.tell`, which has the sampler do what belongs into the trial's own process.
        ended = study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    except UpdateFinishedTrialError:
        return False
    if ended:
        queue_again(study, trial)
    return ended


def running_seconds(trials: Sequence[FrozenTrial]) -> list[float]:
    """For how long each running trial has been running, in seconds."""
    now = datetime.datetime.now()
    starts = [trial.datetime_start for trial in trials if trial.state == TrialState.RUNNING]
    return [(now - start).total_seconds() for start in starts if start is not None]


class _Surplus(Exception):  # noqa: N818 - not an error: other workers were faster
    pass


class _Loop:
    def __init__(
        self,
        study: optuna.Study,
        objective: Callable[[optuna.Trial], float],
        quota: Quota,
        limits: Limits,
        follower: Follower,
    ) -> None:
        self.study = study
        self.objective = objective
        self.quota = quota
        self.limits = limits
        self.follower = follower
        self.num_failures_in_a_row = self.num_timeouts_in_a_row = 0
        self.running: int | None = None

    def run_one(self) -> None:
        self.running = None
        try:
            self.study.optimize(
                self._limited,
                n_trials=1,
                catch=(Exception,),  # failures are stored, shown and counted
                callbacks=[self._ended],
                gc_after_trial=True,
            )
            raise_if_lost()
        except KeyboardInterrupt:
            if self.running is not None:
                trial = self._frozen(self.running)
                if trial.state == TrialState.FAIL:
                    self._queue_again(trial)
            raise
        except (UpdateFinishedTrialError, AssertionError):
            # Another worker took this one for dead, and its trial is queued again. (Optuna runs
            # into an assertion where it meets that in telling the result.)
            if self.running is None or not self._frozen(self.running).state.is_finished():
                raise

    def _limited(self, trial: optuna.Trial) -> float:
        self.running = trial.number
        try:
            try:
                return self._placed(trial)
            finally:
                raise_if_lost()
        except TimeoutReached:
            trial.set_user_attr(INTERRUPTED, TIMEOUT)
            raise
        except TrialTimeoutError as error:
            trial.set_user_attr(TRIAL_TIMEOUT, str(error))
            raise
        except KeyboardInterrupt:
            trial.set_user_attr(INTERRUPTED, SIGNAL)
            raise

    def _placed(self, trial: optuna.Trial) -> float:
        trial.set_user_attr(WORKER, name_of(os.getpid()))
        trials = self.study.get_trials(deepcopy=False)
        place = self.quota.place_of(trials[trial.number], trials)
        if place is None:
            trial.set_user_attr(INTERRUPTED, SURPLUS)
            raise _Surplus
        deadline, over = self._next_limit()
        with time_limit(deadline, over):
            self.follower.started(self.study, trial, place)
            return self.objective(trial)

    def _next_limit(self) -> tuple[float | None, Exception]:
        end, seconds = self.limits
        over = TimeoutReached("the time of this call is over")
        if seconds is None or (end is not None and end <= time.monotonic() + seconds):
            return end, over
        return time.monotonic() + seconds, TrialTimeoutError(
            f"longer than --trial-timeout {seconds:g}"
        )

    def _ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
        why = trial.user_attrs.get(INTERRUPTED)
        if why != SURPLUS:
            self.follower.ended(study, trial)
        if why in {SURPLUS, TIMEOUT}:
            self._queue_again(trial)
            return
        if TRIAL_TIMEOUT in trial.user_attrs:
            # A limit that the user set is no bug; one that no trial keeps would never end.
            self.num_timeouts_in_a_row += 1
            if self.num_timeouts_in_a_row >= _MAX_TIMEOUTS_IN_A_ROW:
                told = trial.user_attrs[TRIAL_TIMEOUT]
                raise RepeatedFailureError(
                    f"{_MAX_TIMEOUTS_IN_A_ROW} trials in a row took {told}; allow more"
                )
            return
        if trial.state != TrialState.FAIL:
            self.num_failures_in_a_row = self.num_timeouts_in_a_row = 0
            return
        self.num_failures_in_a_row += 1
        if self.num_failures_in_a_row >= _MAX_FAILURES_IN_A_ROW:
            raise RepeatedFailureError(f"{_MAX_FAILURES_IN_A_ROW} trials in a row failed")

    def _queue_again(self, trial: FrozenTrial) -> None:
        """Queues what was cut off, unless it was queued before a signal came."""
        if trial.user_attrs.get(INTERRUPTED) == SURPLUS and not (
            trial.params or trial.system_attrs.keys() & {"fixed_params", "grid_id"}
        ):
            return  # it was to try nothing in particular
        trials = self.study.get_trials(deepcopy=False)
        if not any(trial.number in retry_history(other) for other in trials):
            queue_interrupted(self.study, trial)

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]
