"""Time left, and figures as they are written."""

from datetime import datetime, timedelta

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from callbacks.figures import format_duration, format_rank
from tuning.display import outcome
from tuning.report import StudyReport, explain_nothing_complete
from tuning.time_left import describe_left, estimate_seconds


def trial(seconds: float, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    made = create_trial(value=1.0, state=state)
    made.datetime_start = datetime(2026, 1, 1)
    made.datetime_complete = made.datetime_start + timedelta(seconds=seconds)
    return made


def test_pruned_trials_count_at_what_they_cost() -> None:
    finished = [trial(20), trial(20), trial(5, TrialState.PRUNED), trial(5, TrialState.PRUNED)]
    assert estimate_seconds(finished, 10, None) == 125


def test_the_timeout_bounds_the_estimate() -> None:
    assert estimate_seconds([trial(20)], 10, 30) == 30
    assert estimate_seconds([trial(20)], 10, -5) == 0


def test_what_is_left_in_words() -> None:
    assert describe_left([trial(20)], 3, None) == "3 trials left, about 1 min 00 s"
    assert describe_left([], 1, None) == "1 trial left"
    assert describe_left([trial(1)], 0, None) == "no trials left"


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
    nothing = StudyReport(0, 0, 0, {}, [], 0.0)
    assert "--timeout" in explain_nothing_complete(nothing)
    causes = StudyReport(0, 3, 1, {"effective rank": 2, "out of memory": 1}, [], 1.0)
    text = explain_nothing_complete(causes)
    assert "2 pruned: effective rank, 1 pruned: out of memory, 1 failed" in text
