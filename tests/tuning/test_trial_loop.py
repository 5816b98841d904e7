"""The loop over trials: totals under every schedule, limits, interruptions, ghosts."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from tuning.quota import FINISHED, Queue, Quota, Total, num_queued
from tuning.retries import queue_interrupted
from tuning.samplers import make_sampler
from tuning.search_space import DEFAULT_SPACE
from tuning.time_limit import TimeoutReached
from tuning.trial_loop import (
    INTERRUPTED,
    NO_LIMITS,
    SIGNAL,
    TIMEOUT,
    TRIAL_TIMEOUT,
    Limits,
    RepeatedFailureError,
    end_trial,
    run_trials,
)


@pytest.fixture(autouse=True, scope="module")
def _no_collection() -> Iterator[None]:
    """After each trial it takes longer than these trials do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda: 0)
        yield


class Silent:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self.states: list[TrialState] = []

    def started(self, study: optuna.Study, trial: optuna.Trial, place: int) -> None:
        self.places.append(place)

    def ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.states.append(trial.state)


def bowl(trial: optuna.Trial) -> float:
    return (DEFAULT_SPACE.suggest(trial)["dist_reg_weight"] - 0.3) ** 2


def run(
    study: optuna.Study,
    quota: Quota,
    objective: Callable[[optuna.Trial], float] = bowl,
    limits: Limits = NO_LIMITS,
) -> Silent:
    follower = Silent()
    run_trials(study, objective, quota, limits, follower)
    return follower


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


@given(
    num_trials=st.integers(1, 6),
    num_workers=st.integers(1, 5),
    schedule=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=120),
)
def test_the_total_is_exact_under_every_schedule(
    num_trials: int, num_workers: int, schedule: list[tuple[int, bool]]
) -> None:
    """Each turn takes one worker one step further: look, create, ask for a place, end."""
    quota, trials = Total(num_trials), []
    workers: list[Any] = [None] * num_workers

    def turn(index: int, *, succeeds: bool) -> None:
        trial = workers[index]
        if trial is None:
            workers[index] = "room" if quota.has_room(trials) else None
        elif trial == "room":
            workers[index] = SimpleNamespace(number=len(trials), state=TrialState.RUNNING)
            trials.append(workers[index])
        elif not hasattr(trial, "ahead"):
            trial.ahead = quota.place_of(trial, trials) is not None
        else:
            done = TrialState.COMPLETE if succeeds else TrialState.FAIL
            trial.state = done if trial.ahead else TrialState.FAIL
            workers[index] = None
        assert sum(trial.state in FINISHED for trial in trials) <= num_trials

    for index, succeeds in schedule:
        turn(index % num_workers, succeeds=succeeds)
    for _ in range(8 * num_trials):  # all go on in lockstep, which meets at every last place
        for index in range(num_workers):
            turn(index, succeeds=True)
    assert sum(trial.state in FINISHED for trial in trials) == num_trials
    assert quota.is_met(trials)


def test_the_total_counts_earlier_calls_and_no_failures() -> None:
    study = optuna.create_study()
    run(study, Total(2))
    assert run(study, Total(2)).states == []

    def sometimes(trial: optuna.Trial) -> float:
        if trial.number == 3:
            raise ZeroDivisionError
        if trial.number == 4:
            raise optuna.TrialPruned
        return bowl(trial)

    follower = run(study, Total(5), sometimes)
    assert states(study) == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL", "PRUNED", "COMPLETE"]
    assert follower.places == [2, 3, 3, 4]


@pytest.mark.parametrize("name", ["tpe", "gp", "random"])
@pytest.mark.parametrize("stops", [(), (5,), (3, 5, 12)], ids=["never", "once", "often"])
def test_an_interrupted_study_equals_one_that_was_left_alone(name: Any, stops: list[int]) -> None:
    """5 + 9 trials equal 14, also where Ctrl-C came amid one, among a fresh study's first trials too."""
    storage = optuna.storages.InMemoryStorage()

    def open_(study_name: str) -> optuna.Study:
        sampler = make_sampler(name, 7, DEFAULT_SPACE, 14)
        return optuna.create_study(
            storage=storage, study_name=study_name, sampler=sampler, load_if_exists=True
        )

    run(open_("whole"), Total(14))
    if not stops:
        run(open_("parts"), Total(5))
    for stop in stops:

        def interrupted(trial: optuna.Trial, stop: int = stop) -> float:
            value = bowl(trial)
            if trial.number == stop:
                raise KeyboardInterrupt
            return value

        with pytest.raises(KeyboardInterrupt):
            run(open_("parts"), Total(14), interrupted)
    run(open_("parts"), Total(14))
    whole, parts = (
        [t.params for t in open_(n).trials if t.state == TrialState.COMPLETE]
        for n in ("whole", "parts")
    )
    assert parts == whole
    assert len({params["dist_reg_weight"] for params in whole}) == 14


def test_the_time_of_the_call_cuts_the_trial_off_and_queues_it_again() -> None:
    study = optuna.create_study()

    def endless(trial: optuna.Trial) -> float:
        bowl(trial)
        time.sleep(600)
        return 0.0

    run(study, Total(1), endless, Limits(deadline=time.monotonic() + 0.3))
    assert states(study) == ["FAIL", "WAITING"]
    assert study.trials[0].user_attrs[INTERRUPTED] == TIMEOUT
    run(study, Total(1))
    assert states(study) == ["FAIL", "COMPLETE"]
    assert study.trials[1].params == study.trials[0].params


def test_no_trial_starts_when_the_time_is_over() -> None:
    study = optuna.create_study()
    run(study, Total(1), limits=Limits(deadline=time.monotonic()))
    assert study.trials == []


def test_a_hung_trial_ends_as_failed() -> None:
    study = optuna.create_study()

    def hangs(trial: optuna.Trial) -> float:
        value = bowl(trial)
        if trial.number == 0:
            time.sleep(600)
        return value

    run(study, Total(1), hangs, Limits(trial_seconds=0.3))
    assert states(study) == ["FAIL", "COMPLETE"]
    assert study.trials[0].user_attrs[TRIAL_TIMEOUT] == "longer than --trial-timeout 0.3"
    assert study.trials[1].params != study.trials[0].params


def test_trials_that_take_too_long_are_no_failures_in_a_row() -> None:
    study = optuna.create_study()

    def slow_at_first(trial: optuna.Trial) -> float:
        value = bowl(trial)
        if trial.number < 4:
            time.sleep(600)
        return value

    run(study, Total(1), slow_at_first, Limits(trial_seconds=0.1))
    assert states(study) == [*["FAIL"] * 4, "COMPLETE"]


def test_a_limit_that_no_trial_keeps_ends_the_loop() -> None:
    study = optuna.create_study()

    def hangs(trial: optuna.Trial) -> float:
        time.sleep(600)
        return bowl(trial)

    with pytest.raises(RepeatedFailureError, match=r"20 .* longer than --trial-timeout 0\.02;"):
        run(study, Total(1), hangs, Limits(trial_seconds=0.02))
    assert states(study) == ["FAIL"] * 20


def test_three_failures_in_a_row_end_the_loop() -> None:
    study = optuna.create_study()

    def broken(trial: optuna.Trial) -> float:
        raise ZeroDivisionError

    with pytest.raises(RepeatedFailureError):
        run(study, Total(9), broken)
    assert states(study) == ["FAIL"] * 3


def test_a_trial_that_another_worker_took_for_dead_is_left_to_its_repetition() -> None:
    study = optuna.create_study()

    def taken(trial: optuna.Trial) -> float:
        value = bowl(trial)
        if trial.number == 0:
            assert end_trial(study, study.trials[0])
        return value

    run(study, Total(1), taken)
    assert states(study) == ["FAIL", "COMPLETE"]
    assert study.trials[1].params == study.trials[0].params


def test_a_killed_trial_is_queued_again_once() -> None:
    study = optuna.create_study()

    def dies(trial: optuna.Trial) -> float:
        value = bowl(trial)
        if trial.number < 2:
            assert end_trial(study, study.trials[trial.number])
        return value

    run(study, Total(1), dies)
    assert states(study) == ["FAIL", "FAIL", "COMPLETE"]
    first, second, third = (trial.params for trial in study.trials)
    assert first == second != third


def test_a_queue_ends_with_what_was_queued() -> None:
    study = optuna.create_study()
    for weight in (0.1, 0.2):
        study.enqueue_trial({"dist_reg_weight": weight})
    assert run(study, Queue(), bowl).places == [0, 1]
    assert [trial.params["dist_reg_weight"] for trial in study.trials] == [0.1, 0.2]


def test_what_is_queued_again_has_the_place_of_the_first_and_counts_once() -> None:
    study = optuna.create_study()
    for weight in (0.1, 0.2, 0.3):
        study.enqueue_trial({"dist_reg_weight": weight})

    def dies(trial: optuna.Trial) -> float:
        value = bowl(trial)
        if trial.number == 0:
            assert end_trial(study, study.trials[0])
        return value

    assert run(study, Queue(), dies).places == [0, 1, 2, 0]
    assert num_queued(study.trials) == 3


def test_a_queued_trial_that_is_interrupted_before_it_has_a_place_is_not_lost() -> None:
    class Interrupted(NamedTuple):
        num_trials: int
        is_met = Total.is_met
        has_room = Total.has_room

        def place_of(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int | None:
            raise KeyboardInterrupt

    study = optuna.create_study()
    study.enqueue_trial({"dist_reg_weight": 0.25})
    with pytest.raises(KeyboardInterrupt):
        run(study, Interrupted(3))
    assert states(study) == ["FAIL", "WAITING"]
    assert study.trials[0].user_attrs[INTERRUPTED] == SIGNAL
    run(study, Total(1))
    assert study.trials[1].params == {"dist_reg_weight": 0.25}


@pytest.mark.parametrize("queued", [True, False])
def test_a_signal_beside_the_end_of_the_time_queues_the_trial_once(
    monkeypatch: pytest.MonkeyPatch, *, queued: bool
) -> None:
    def interrupted(study: optuna.Study, trial: FrozenTrial) -> None:
        monkeypatch.undo()
        if queued:
            queue_interrupted(study, trial)
        raise KeyboardInterrupt

    def objective(trial: optuna.Trial) -> float:
        bowl(trial)
        raise TimeoutReached

    study = optuna.create_study()
    monkeypatch.setattr("tuning.trial_loop.queue_interrupted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(study, Total(3), objective)
    assert states(study) == ["FAIL", "WAITING"]
