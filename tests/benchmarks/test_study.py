"""How a study is judged, by five trials whose regret is known, and what is printed of a tiny one."""

import datetime
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks import study
from benchmarks.study_judgement import Outcome, Point, compare, point_of, summary
from callbacks.verdict import MEDIAN, PRUNING_REASON
from config import Config
from datamodules.token_datamodule import TokenDataModule
from tests.commands import CHAT, TINY, Call
from tuning.search_space import TUNABLE

CONFIG = Config(random_seed=7, phase2_epochs=5, min_effective_rank=0.5)
LOW_RANK = "effective rank"
WEIGHT = TUNABLE["dist_reg_weight"]


def trial(
    weight: float, values: list[float], reason: str | None = None, rank: float = 0.8
) -> FrozenTrial:
    """A trial that reported these values, and was pruned where there is a reason."""
    made = create_trial(
        state=TrialState.COMPLETE if reason is None else TrialState.PRUNED,
        value=min(values, default=None),
        params={"dist_reg_weight": weight},
        distributions={
            "dist_reg_weight": optuna.distributions.FloatDistribution(WEIGHT.low, WEIGHT.high)
        },
        intermediate_values=dict(enumerate(values, start=1)),
        user_attrs={
            "effective_rank_ratio": rank, "context_cosine": 0.1, "token_sensitivity": 0.5,
            "phase1_seconds": 6.0, "phase2_seconds": 4.0,
            **({} if reason is None else {PRUNING_REASON: reason}),
        },
    )  # fmt: skip
    seconds = 10.0 if reason is None else 6.0 + 0.8 * len(values)
    made.datetime_start = datetime.datetime(2026, 1, 1)
    made.datetime_complete = made.datetime_start + datetime.timedelta(seconds=seconds)
    return made


TRIALS = [
    trial(0.1, [230, 220, 210, 206, 204]),
    trial(0.2, [240, 230, 220, 212, 210]),
    trial(0.3, [250, 240], MEDIAN),
    trial(0.4, [], LOW_RANK, rank=0.4),
    trial(0.5, [260], MEDIAN),
]
RERUN = {
    0.1: trial(0.1, [230, 220, 210, 206, 204]),
    0.2: trial(0.2, [240, 230, 220, 212, 210]),
    0.3: trial(0.3, [250, 240, 230, 210, 201]),  # within 1 % of the best: good, and stopped
    0.4: trial(0.4, [270, 250, 230, 210, 200.5], rank=0.4),  # good, and pruned by a check
    0.5: trial(0.5, [260, 255, 250, 245, 240]),
}
GRID = [
    Point(0.05, 200.0, False, 0.45),
    Point(0.15, 202.0, True, 0.7),
    Point(0.6, 240.0, True, 0.9),
]


def judged() -> Outcome:
    return compare(CONFIG, TRIALS, GRID, RERUN)


def test_regret_is_of_the_grid_and_of_its_points_that_pass() -> None:
    outcome = judged()
    assert outcome.seed == 7
    assert outcome.best == Point(0.1, 204.0, True, 0.8)
    assert outcome.regret == pytest.approx(204 / 200 - 1)
    assert outcome.regret_of_passing == pytest.approx(204 / 202 - 1)
    assert outcome.mismatch == 0


def test_compute_counts_whole_phases_and_the_epochs_that_ran() -> None:
    outcome = judged()
    num_epochs = 5 + 5 + 2 + 0 + 1
    assert outcome.compute == pytest.approx((5 * 6 + 4 * num_epochs / 5) / (5 * 10))
    assert outcome.compute_measured == pytest.approx((10 + 10 + 7.6 + 6 + 6.8) / 50)


def test_good_settings_that_were_pruned_are_told_by_who_pruned_them() -> None:
    outcome = judged()
    assert (outcome.num_checked, outcome.num_stopped) == (1, 2)
    assert [point.weight for point in outcome.good_checked] == [0.4]
    assert [point.weight for point in outcome.good_stopped] == [0.3]
    assert not point_of(RERUN[0.4], CONFIG).passes


def test_a_repetition_that_differs_is_told() -> None:
    rerun = {**RERUN, 0.2: trial(0.2, [231.0])}
    assert compare(CONFIG, TRIALS, GRID, rerun).mismatch == pytest.approx(0.1)


def test_the_summary_has_the_median_seed_and_all_grids() -> None:
    text = summary([judged()._replace(regret=regret) for regret in (0.01, 0.5, 0.02)])
    assert "median regret 2.00% of the grid" in text
    assert "of 9 points 6 are within 1% of their grid's best" in text
    assert "would let 3 of those pass (lowest effective rank 45.0%)" in text


def test_a_study_without_a_complete_trial_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_data: TokenDataModule,
) -> None:
    def pruned(*_: object) -> optuna.Study:
        made = optuna.create_study()
        made.add_trials(TRIALS[2:])
        return made

    monkeypatch.setattr(study, "quiet_study", pruned)
    config = tiny_data.config
    data = ["--corpus", config.corpus, "--vocab-size", "300", "--cache-dir", config.cache_dir]
    monkeypatch.setattr(sys, "argv", ["study.py", "--seeds", "3", "4", *data])
    study.main()
    *_, third, fourth = capsys.readouterr().out.splitlines()
    assert third == "   3  no trial of the study is complete: all were pruned"
    assert fourth.startswith("   4  no trial")


@pytest.mark.parametrize("wrong", ["--num-trials 0", "--num-points 0", "--seeds"])
def test_what_cannot_be_measured_is_told_in_one_line(wrong: str, call: Call) -> None:
    told = call(study.main, *wrong.split(), expect=2).stderr
    assert told.startswith(f"error: {wrong.split()[0]} is ")
    assert told.count("\n") == 1


def test_a_seed_has_its_line_and_the_picture_is_drawn(
    tmp_path: Path, tiny_config: Config, call: Call
) -> None:
    ran = call(
        study.main, *TINY, "--corpus", str(CHAT), "--cache-dir", tiny_config.cache_dir,
        "--phase1-max-epochs", "2", "--phase2-epochs", "2", "--seeds", "3", "--num-trials", "3",
        "--num-points", "2", "--plot", "s.png",
    )  # fmt: skip
    lines = ran.stdout.splitlines()
    assert lines[3].split()[0] == "3"
    assert lines[-1] == "largest difference of a training and its repetition: 0.0e+00"
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
