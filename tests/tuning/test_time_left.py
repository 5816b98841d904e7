"""Time left, against recorded studies and in its parts; figures as they are written."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from callbacks.figures import format_duration, format_rank
from tuning.display import outcome, trial_seconds
from tuning.report import StudyReport, explain_nothing_complete
from tuning.study import StudyPlan, describe_rest
from tuning.time_left import Outcome, describe_left, estimate_seconds


def trial(
    seconds: float,
    state: TrialState = TrialState.COMPLETE,
    *,
    phase1_seconds: float | None = None,
    phase2_seconds: float | None = None,
    **user_attrs: Any,
) -> FrozenTrial:
    phases = {"phase1_seconds": phase1_seconds, "phase2_seconds": phase2_seconds}
    user_attrs |= {name: value for name, value in phases.items() if value is not None}
    value = 1.0 if state == TrialState.COMPLETE else None
    made = create_trial(value=value, state=state, user_attrs=user_attrs)
    made.datetime_start = datetime(2026, 1, 1)
    made.datetime_complete = made.datetime_start + timedelta(seconds=seconds)
    return made


def complete() -> FrozenTrial:
    return trial(20, phase1_seconds=10, phase2_seconds=9)


def pruned_in_phase1() -> FrozenTrial:
    return trial(10, TrialState.PRUNED, phase1_seconds=10)


def pruned_in_phase2() -> FrozenTrial:
    return trial(12, TrialState.PRUNED, phase1_seconds=10, phase2_seconds=1)


def recorded_studies() -> list[Any]:
    path = Path(__file__).parent / "data" / "recorded_studies.json"
    record = json.loads(path.read_text())
    return [
        pytest.param(
            [dict(zip(record["columns"], row, strict=True)) for row in study["trials"]],
            id=study["command"].removeprefix("python optimize.py --n-trials 30").strip()
            or "default",
        )
        for study in record["studies"]
    ]


def rebuild(rows: list[dict[str, Any]]) -> list[FrozenTrial]:
    return [
        trial(
            row["seconds"],
            TrialState[row["state"]],
            phase1_seconds=row["phase1_seconds"],
            phase2_seconds=row["phase2_seconds"],
            pruning_reason=row["pruning_reason"],
        )
        for row in rows
    ]


def errors(trials: list[FrozenTrial], num_finished: int) -> tuple[float, float]:
    """Relative errors of the estimate and of the mean over all trials."""
    seconds = [trial_seconds(one) for one in trials]
    left = sum(seconds[num_finished:])
    num_left = len(trials) - num_finished
    estimate = estimate_seconds(trials[:num_finished], num_left)
    mean = sum(seconds[:num_finished]) / num_finished * num_left
    return abs(estimate / left - 1), abs(mean / left - 1)


@pytest.mark.parametrize("rows", recorded_studies())
def test_recorded_studies_after_10_of_30_trials(rows: list[dict[str, Any]]) -> None:
    trials = rebuild(rows)
    assert len(trials) == 30
    assert errors(trials, 10)[0] < 0.2


@pytest.mark.parametrize("num_finished", [5, 10, 15, 20])
def test_a_mean_over_all_trials_does_worse(num_finished: int) -> None:
    recorded = [errors(rebuild(study.values[0]), num_finished) for study in recorded_studies()]
    ours, means = zip(*recorded, strict=True)
    assert sum(ours) < sum(means)


def test_outcomes() -> None:
    assert Outcome.of(complete()) == Outcome.COMPLETE
    assert Outcome.of(pruned_in_phase1()) == Outcome.PRUNED_IN_PHASE1
    assert Outcome.of(pruned_in_phase2()) == Outcome.PRUNED_IN_PHASE2


def test_shares_and_seconds_by_hand() -> None:
    finished = [*[complete()] * 5, pruned_in_phase1(), pruned_in_phase2(), pruned_in_phase2()]
    phase1 = (1 + 1) / (8 + 2)
    phase2 = (2 + 5) / (2 + 10)
    expected = phase1 * 10 + (1 - phase1) * (phase2 * 12 + (1 - phase2) * 20)
    assert estimate_seconds(finished, 10) == pytest.approx(10 * expected)


def test_start_up_trials_say_nothing_of_the_pruner() -> None:
    """Five complete trials in which none could be pruned: half of the next ones are expected to be,
    at a cost between that of Phase 1 and that of a complete trial."""
    phase1 = 1 / 7
    expected = phase1 * 10 + (1 - phase1) * (15 + 20) / 2
    assert estimate_seconds([complete()] * 5, 10) == pytest.approx(10 * expected)
    # The pruner does not prune yet: only Phase 1 shortens a trial.
    in_startup = estimate_seconds([complete()] * 5, 10, num_startup_trials=100)
    assert in_startup == pytest.approx(10 * (phase1 * 10 + (1 - phase1) * 20))


def test_without_a_pruner_every_trial_takes_its_time() -> None:
    study = optuna.create_study()
    for _ in range(10):
        study.add_trial(trial(100, phase1_seconds=10, phase2_seconds=90))
    lefts = {
        pruner: describe_rest(study, StudyPlan("s", 30, Path("runs"), pruner=pruner))  # type: ignore[arg-type]
        for pruner in ("none", "median")
    }
    # One of twelve is expected to end after Phase 1: 92.5 s each.
    assert lefts["none"] == "20 trials left, about 30 min 50 s"
    assert lefts["median"] == "20 trials left, about 26 min 15 s"


def test_one_slow_trial_changes_nothing() -> None:
    finished = [complete()] * 9
    slow = trial(60, phase1_seconds=30, phase2_seconds=29)
    assert estimate_seconds([slow, *finished], 5) == estimate_seconds([complete(), *finished], 5)


@pytest.mark.parametrize("only", [complete, pruned_in_phase1, pruned_in_phase2])
def test_one_finished_trial_is_enough(only: Any) -> None:
    assert 50 <= estimate_seconds([only()], 5) <= 100


def test_workers_share_the_time() -> None:
    finished = [complete()] * 5
    alone = estimate_seconds(finished, 20)
    assert estimate_seconds(finished, 20, num_workers=2) == pytest.approx(alone / 2)
    # Eight workers end one trial no sooner than one does.
    assert estimate_seconds(finished, 1, num_workers=8) == estimate_seconds(finished, 1)


def test_running_trials_count_with_what_is_left_of_them() -> None:
    finished = [complete()] * 5
    fresh = estimate_seconds(finished, 3, running_seconds=[0])
    assert fresh == pytest.approx(estimate_seconds(finished, 3))
    assert estimate_seconds(finished, 3, running_seconds=[4]) == pytest.approx(fresh - 4)
    # After 17 s neither phase has pruned it: it will be complete, at 20 s.
    assert estimate_seconds(finished, 1, running_seconds=[17]) == pytest.approx(3)
    assert estimate_seconds(finished, 2, num_workers=2, running_seconds=[17, 19]) == pytest.approx(
        3
    )


def test_never_negative() -> None:
    finished = [complete()] * 5
    assert estimate_seconds(finished, 0) == 0
    assert estimate_seconds(finished, -1, running_seconds=[3]) == 0
    assert estimate_seconds(finished, 1, running_seconds=[1e6]) == 0
    assert estimate_seconds(finished, 1, running_seconds=[1e6, 1e6], num_workers=2) == 0


@pytest.mark.parametrize("num_complete", [1, 4, 5, 20])
@pytest.mark.parametrize(("num_workers", "running"), [(1, []), (1, [15]), (4, [0, 5, 11, 30])])
def test_more_trials_never_take_less_time(
    num_complete: int, num_workers: int, running: list[float]
) -> None:
    finished = [complete()] * num_complete
    seconds = [
        estimate_seconds(finished, num_left, num_workers=num_workers, running_seconds=running)
        for num_left in range(30)
    ]
    assert seconds == sorted(seconds)


def test_nothing_finished_yet() -> None:
    with pytest.raises(ValueError, match="at least one trial"):
        estimate_seconds([], 3)
    assert describe_left([], 1) == "1 trial left"
    assert describe_left([], 3, running_seconds=[5], seconds_until_timeout=60) == "3 trials left"


def test_what_is_left_in_words() -> None:
    # Six of seven trials at 17.5 s, one at 10 s: 16.43 s each.
    finished = [complete()] * 5
    assert describe_left(finished, 0) == "no trials left"
    assert describe_left(finished, 1) == "1 trial left, about 16.4 s"
    assert describe_left(finished, 4) == "4 trials left, about 1 min 06 s"
    assert describe_left(finished, 4, num_workers=2) == "4 trials left, about 32.9 s"


def test_what_the_timeout_allows_in_words() -> None:
    finished = [complete()] * 5

    def left(seconds: float, num_workers: int = 1, running: tuple[float, ...] = ()) -> str:
        return describe_left(
            finished,
            25,
            num_workers=num_workers,
            running_seconds=running,
            seconds_until_timeout=seconds,
        )

    assert left(1e4) == "25 trials left, about 6 min 51 s"
    # Two trials end in 40 s; the third is cut off.
    assert left(40) == "25 trials left, of which the timeout allows about 2"
    assert left(1, 2) == "25 trials left, of which the timeout allows none"
    assert left(4, 2, (17.0,)) == "25 trials left, of which the timeout allows about 1"
    assert left(-5) == "25 trials left, of which the timeout allows none"
    assert left(-5, 2, (17.0,)) == "25 trials left, of which the timeout allows none"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_rank() -> None:
    assert format_rank(650.2, 768) == "650.2/768 (84.7%)"


def test_outcomes_in_words() -> None:
    assert outcome(trial(1)) == "val_ppl 1.00"
    pruned = trial(1, TrialState.PRUNED)
    pruned.user_attrs["pruning_reason"] = "effective rank"
    assert outcome(pruned) == "pruned: effective rank"


def test_why_nothing_completed() -> None:
    nothing = StudyReport(0, 0, 0, 0, {}, [], 0.0)
    assert "--timeout" in explain_nothing_complete(nothing)
    interrupted = explain_nothing_complete(nothing, "a signal ended the study")
    assert interrupted == "No trial finished before a signal ended the study."
    causes = StudyReport(0, 3, 1, 0, {"effective rank": 2, "out of memory": 1}, [], 1.0)
    text = explain_nothing_complete(causes)
    assert "2 pruned: effective rank, 1 pruned: out of memory, 1 failed" in text
