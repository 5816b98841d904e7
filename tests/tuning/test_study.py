"""Whole studies of tiny trials: totals, resume, pruning, failures."""

import dataclasses
import io
import math
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from callbacks.verdict import MEDIAN, OUT_OF_MEMORY, PRUNING_REASON
from config import Config, InputError, Precision
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.token_prediction_module import TokenPredictionModule
from tuning import report
from tuning.display import StudyDisplay
from tuning.objective import DEVICE, Objective
from tuning.storage import open_storage
from tuning.study import (
    StudyPlan,
    best_trial,
    check_reachable_rank,
    finished_trials,
    log_dir_of,
    open_study,
    run_study,
)
from tuning.training import device_name
from tuning.trial_loop import RepeatedFailureError


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def display(output: io.StringIO) -> StudyDisplay:
    return StudyDisplay(Console(file=output, width=120))


def run(
    config: Config,
    data: TokenDataModule,
    display: StudyDisplay,
    folder: Path,
    num_trials: int,
    storage: str | None = None,
) -> optuna.Study:
    plan = StudyPlan("tiny", num_trials, folder / "runs")
    study = open_study(open_storage(storage), plan, config, data)
    run_study(study, config, data, plan, display)
    return study


def values(study: optuna.Study) -> list[tuple[float, float | None]]:
    return [(trial.params["dist_reg_weight"], trial.value) for trial in study.trials]


def test_a_study_completes_and_shows_what_it_does(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    display: StudyDisplay,
    output: io.StringIO,
    tmp_path: Path,
) -> None:
    study = run(tiny_config, tiny_data, display, tmp_path, 3)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    for trial in study.trials:
        assert trial.value == min(trial.intermediate_values.values())
        assert sorted(trial.intermediate_values) == [0, 1]
        assert trial.user_attrs["phase1_seconds"] > 0
        assert trial.user_attrs["phase2_seconds"] > 0
        assert trial.user_attrs[DEVICE] == device_name(tiny_config.accelerator)
    lines = output.getvalue().splitlines()
    assert sum(line.startswith("Trial ") for line in lines) == 3
    assert sum("Phase 1: after sweep 3/3, effective rank" in line for line in lines) == 3
    assert sum("Phase 2: after epoch 2/2, val_ppl" in line for line in lines) == 3
    assert "2 trials left, about" in lines[3]
    assert "no trials left" in lines[-1]


@pytest.mark.parametrize("freeze_context", [True, False])
@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_a_study_in_every_precision_frozen_or_not(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    display: StudyDisplay,
    tmp_path: Path,
    precision: Precision,
    freeze_context: bool,
) -> None:
    config = dataclasses.replace(tiny_config, precision=precision, freeze_context=freeze_context)
    study = run(config, tiny_data, display, tmp_path, 1)
    plain = dataclasses.replace(config, precision="32-true")
    expected = run(plain, tiny_data, display, tmp_path, 1).trials[0].value
    assert study.trials[0].value == pytest.approx(expected, rel=0.05)


def test_same_seed_same_study_other_seed_another(
    tiny_config: Config, tiny_data: TokenDataModule, display: StudyDisplay, tmp_path: Path
) -> None:
    first, again = (run(tiny_config, tiny_data, display, tmp_path / n, 3) for n in ("a", "b"))
    other = run(
        dataclasses.replace(tiny_config, random_seed=3), tiny_data, display, tmp_path / "c", 3
    )
    assert values(first) == values(again)
    assert values(first) != values(other)


def test_a_continued_study_reaches_its_total_and_equals_an_uninterrupted_one(
    tiny_config: Config, tiny_data: TokenDataModule, display: StudyDisplay, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    run(tiny_config, tiny_data, display, tmp_path, 3, url)
    continued = run(tiny_config, tiny_data, display, tmp_path, 6, url)
    whole = run(tiny_config, tiny_data, display, tmp_path / "whole", 6)
    assert len(continued.trials) == 6
    assert values(continued) == values(whole)
    once_more = run(tiny_config, tiny_data, display, tmp_path, 6, url)
    assert len(once_more.trials) == 6
    assert log_dir_of(once_more) == log_dir_of(continued)


def test_a_study_is_not_continued_under_other_settings(
    tiny_config: Config, tiny_data: TokenDataModule, display: StudyDisplay, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    run(tiny_config, tiny_data, display, tmp_path, 1, url)
    changed = dataclasses.replace(tiny_config, dropout=0.1)
    with pytest.raises(InputError, match=r"dropout was 0\.3 and is 0\.1"):
        run(changed, tiny_data, display, tmp_path, 2, url)
    elsewhere = dataclasses.replace(tiny_config, cache_dir=str(tmp_path / "other"))
    assert len(run(elsewhere, tiny_data, display, tmp_path, 2, url).trials) == 2


def test_a_grid_is_continued_as_the_same_grid_only(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    """Of another one, trials that finished earlier would take the places of points."""
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    plan = StudyPlan("tiny", 3, tmp_path / "runs", sampler="grid")
    study = open_study(storage, plan, tiny_config, tiny_data)
    study.optimize(lambda trial: sum(plan.space.suggest(trial).values()), n_trials=2)
    assert len(open_study(storage, plan, tiny_config, tiny_data).trials) == 2
    five = StudyPlan("five", 5, plan.runs_dir, sampler="grid")
    for other in (five, StudyPlan("random", 3, plan.runs_dir, sampler="random")):
        study = open_study(storage, other, tiny_config, tiny_data)
        study.optimize(lambda trial: sum(plan.space.suggest(trial).values()), n_trials=1)
        with pytest.raises(InputError, match="not of this grid of 3 points"):
            open_study(
                storage,
                dataclasses.replace(plan, name=other.name),
                tiny_config,
                tiny_data,
            )


def test_a_new_study_leaves_an_earlier_ones_logs_alone(
    tiny_config: Config, tiny_data: TokenDataModule, display: StudyDisplay, tmp_path: Path
) -> None:
    first = run(tiny_config, tiny_data, display, tmp_path, 1)
    second = run(tiny_config, tiny_data, display, tmp_path, 1)
    assert log_dir_of(first) == tmp_path / "runs" / "tiny"
    assert log_dir_of(second) == tmp_path / "runs" / "tiny_2"


def test_every_trial_below_the_rank_is_pruned_and_counted(
    tiny_config: Config, tiny_data: TokenDataModule, display: StudyDisplay, tmp_path: Path
) -> None:
    config = dataclasses.replace(tiny_config, min_effective_rank=0.999)
    study = run(config, tiny_data, display, tmp_path, 2)
    assert [trial.state for trial in study.trials] == [TrialState.PRUNED] * 2
    result = report.gather(study)
    assert result.num_by_reason == {"effective rank": 2}
    assert result.best == []
    assert best_trial(study) is None
    assert "2 pruned: effective rank" in report.explain_nothing_complete(result)
    for trial in study.trials:
        assert trial.constraints["effective_rank_ratio"] > 0
        assert not trial.intermediate_values


def test_the_median_pruner_stops_phase_2_early(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    display: StudyDisplay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the start-up trials, one that learns nothing is worse than the median at once."""
    config = dataclasses.replace(tiny_config, phase2_epochs=4, phase2_learning_rate=0.02)
    plan = StudyPlan("tiny", 7, tmp_path)
    study = open_study(open_storage(None), plan, config, tiny_data)
    original = Objective._phase2

    def spoilt(self: Objective, trial: optuna.Trial, *arguments: object) -> float:
        if trial.number == 6:
            monkeypatch.setattr(
                TokenPredictionModule, "_loss", lambda self, c, t: self.head(c, t).sum() * 0 + 50
            )
        return original(self, trial, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Objective, "_phase2", spoilt)
    run_study(study, config, tiny_data, plan, display)
    last = study.trials[6]
    assert last.state == TrialState.PRUNED
    assert last.user_attrs[PRUNING_REASON] == MEDIAN
    assert len(last.intermediate_values) == 1 < config.phase2_epochs
    assert report.gather(study).num_by_reason[MEDIAN] >= 1


def test_running_out_of_memory_disqualifies_the_trial_not_the_study(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    display: StudyDisplay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exhausted(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")

    monkeypatch.setattr(TokenPredictionModule, "training_step", exhausted)
    study = run(tiny_config, tiny_data, display, tmp_path, 2)
    for trial in study.trials:
        assert trial.state == TrialState.PRUNED
        assert trial.user_attrs[PRUNING_REASON] == OUT_OF_MEMORY
        assert trial.constraints["memory"] > 0


def test_a_diverging_loss_disqualifies_the_trial(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    display: StudyDisplay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = TokenPredictionModule._loss
    monkeypatch.setattr(
        TokenPredictionModule, "_loss", lambda self, c, t: original(self, c, t) * math.nan
    )
    study = run(tiny_config, tiny_data, display, tmp_path, 1)
    assert study.trials[0].state == TrialState.PRUNED
    assert study.trials[0].user_attrs[PRUNING_REASON] == "non-finite loss"


def test_a_bug_fails_the_trial_with_its_traceback_and_three_end_the_study(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    display: StudyDisplay,
    output: io.StringIO,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(TokenPredictionModule, "training_step", broken)
    plan = StudyPlan("tiny", 10, tmp_path)
    study = open_study(open_storage(None), plan, tiny_config, tiny_data)
    with pytest.raises(RepeatedFailureError):
        run_study(study, tiny_config, tiny_data, plan, display)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 3
    assert finished_trials(study) == []
    for trial in study.trials:
        assert "ZeroDivisionError: a bug of ours" in trial.user_attrs["traceback"]
    assert output.getvalue().count("in broken\n") == 3
    assert "During handling" not in output.getvalue()


def test_a_bug_before_the_first_validation_shows_its_own_traceback_alone(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    display: StudyDisplay,
    output: io.StringIO,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(FixedPointModule, "training_step", broken)
    with pytest.raises(RepeatedFailureError):
        run(tiny_config, tiny_data, display, tmp_path, 3)
    assert output.getvalue().count("Traceback") == 3
    assert "Phase 1: stopped after sweep 0/3, no sweep validated" in output.getvalue()


def test_failures_that_are_not_in_a_row_do_not_end_the_study(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    display: StudyDisplay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = Objective._phase2

    def sometimes(self: Objective, trial: optuna.Trial, *arguments: object) -> float:
        if trial.number % 2 == 0:
            raise ZeroDivisionError
        return original(self, trial, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Objective, "_phase2", sometimes)
    study = run(tiny_config, tiny_data, display, tmp_path, 4)
    assert len(finished_trials(study)) == 4
    assert len(study.get_trials(states=(TrialState.FAIL,))) == 4


def test_an_interrupt_fails_the_running_trial_and_ends_the_study(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    display: StudyDisplay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Raised inside `fit`, where Lightning makes a SystemExit of it."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TokenPredictionModule, "training_step", interrupted)
    plan = StudyPlan("tiny", 5, tmp_path)
    study = open_study(open_storage(None), plan, tiny_config, tiny_data)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, tiny_config, tiny_data, plan, display)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert study.trials[0].user_attrs["interrupted"] == "signal"
    assert study.trials[0].params == study.trials[1].params


def test_a_threshold_that_the_data_cannot_meet_is_refused() -> None:
    config = Config(min_effective_rank=0.95)
    with pytest.raises(InputError, match=r"90\.\d% of 768 dimensions at best"):
        check_reachable_rank(config, 1280)
    check_reachable_rank(config, 6400)


def test_storage_urls_that_cannot_be_used_are_told_without_their_password(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no database URL"):
        open_storage("study.db")
    with pytest.raises(InputError, match="cannot be opened"):
        open_storage(f"sqlite:///{tmp_path}/missing/study.db")
    with pytest.raises(InputError) as refused:
        open_storage("postgresql://someone:secret@127.0.0.1:1/none")
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)
