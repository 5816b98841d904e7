"""Winners under fresh seeds: what is trained, who wins, what is said of it."""

import copy
import dataclasses
import datetime
import io
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from config import Config
from datamodules.token_datamodule import TokenDataModule
from tuning import confirm, report
from tuning.confirm import Confirmed
from tuning.display import StudyDisplay
from tuning.storage import open_storage
from tuning.study import StudyPlan, open_study, run_study
from tuning.trial_loop import RepeatedFailureError

SEEDS = confirm.confirmation_seeds(0)


def study_of(*values: float) -> optuna.Study:
    """Complete trials with these values; trial n has the weight 0.1 + n / 100."""
    study = optuna.create_study(study_name="known")

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("dist_reg_weight", 0.01, 0.99)
        return values[trial.number]

    for number in range(len(values)):
        study.enqueue_trial({"dist_reg_weight": 0.1 + number / 100})
    study.optimize(objective, n_trials=len(values))
    return study


def confirm_as(study: optuna.Study, values: dict[int, tuple[float, ...]]) -> list[Confirmed]:
    """Trains nothing: each setting has a value for each seed."""
    config = Config(random_seed=0)
    confirmation = confirm.open_confirmation(study, config, len(values))

    def objective(trial: optuna.Trial) -> float:
        number = trial.suggest_int("trial", 0, 2**31)
        seed = trial.suggest_int("random_seed", 0, 2**32 - 1)
        return values[number][SEEDS.index(seed)]

    confirmation.optimize(objective, n_trials=3 * len(values))
    return confirm.gather_confirmed(study, len(values))


def test_the_lowest_mean_wins_not_the_lowest_trial() -> None:
    study = study_of(10.0, 11.0, 50.0)
    confirmed = confirm_as(study, {0: (12.0, 13.0, 14.0), 1: (11.0, 11.5, 12.0)})
    assert [setting.trial for setting in confirmed] == [1, 0]
    assert confirmed[0].mean == pytest.approx(11.5)
    assert confirmed[0].spread == pytest.approx(0.5)
    found = report.gather(study, confirmed)
    assert found.winner == {"dist_reg_weight": pytest.approx(0.11)}
    assert "11.5000 ± 0.5000 over 3 fresh seeds: trial 1 of" in report.provenance(found, "known")
    assert "not confirmed" in report.provenance(report.gather(study), "known")


def test_a_difference_inside_the_spread_is_said_to_be_none() -> None:
    apart = [Confirmed(4, {}, [10.0, 10.1, 10.2]), Confirmed(2, {}, [11.0, 11.1, 11.2])]
    assert confirm.describe_winner(apart) == (
        "Trial 4 wins: 10.10 ± 0.10; trial 2 is 1.00 above, outside the spread of 0.10."
    )
    close = [Confirmed(4, {}, [10.0, 10.1, 10.2]), Confirmed(2, {}, [9.0, 10.2, 11.4])]
    assert "0.10 above, inside the spread of 1.20 over seeds" in confirm.describe_winner(close)
    assert confirm.describe_winner(apart[:1]) == "Trial 4 wins: 10.10 ± 0.10."


def test_seeds_are_fresh_and_the_same_for_every_setting() -> None:
    assert confirm.confirmation_seeds(42) == confirm.confirmation_seeds(42)
    assert 42 not in confirm.confirmation_seeds(42)
    assert len(set(confirm.confirmation_seeds(42) + SEEDS)) == 6


@pytest.mark.parametrize(("asked", "expected"), [(None, 3), (0, 0), (2, 2), (99, 12)])
def test_ten_complete_trials_are_confirmed_unasked(asked: int | None, expected: int) -> None:
    assert confirm.num_settings(asked, study_of(*range(12))) == expected
    assert confirm.num_settings(None, study_of(*range(9))) == 0


def test_settings_that_repeat_count_once() -> None:
    study = study_of(3.0, 1.0, 2.0)
    study.enqueue_trial(study.trials[1].params)
    study.optimize(lambda trial: trial.suggest_float("dist_reg_weight", 0.01, 0.99) * 0, n_trials=1)
    assert [trial.number for trial in confirm.best_settings(study, 3)] == [3, 2, 0]


def test_a_confirmation_is_queued_once_and_grows_with_the_study() -> None:
    study = study_of(3.0, 1.0, 2.0)

    def queued() -> list[int]:
        opened = confirm.open_confirmation(study, Config(random_seed=0), 2)
        return [trial.system_attrs["fixed_params"]["trial"] for trial in opened.trials]

    assert queued() == [1, 1, 1, 2, 2, 2]
    assert queued() == [1, 1, 1, 2, 2, 2]
    study.enqueue_trial({"dist_reg_weight": 0.5})
    study.optimize(lambda trial: trial.suggest_float("dist_reg_weight", 0.01, 0.99), n_trials=1)
    assert queued() == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_workers_share_the_time_that_is_left() -> None:
    study = study_of(3.0, 1.0)
    for trial in study.trials:
        stored = study._storage._get_trial(trial._trial_id)  # type: ignore[attr-defined]
        stored.datetime_complete = stored.datetime_start + datetime.timedelta(seconds=20)
    assert confirm.describe_status(study, 1) == ""
    opened = confirm.open_confirmation(study, Config(), 2)
    assert confirm.describe_rest(opened, study, 1) == "6 trainings left, about 2 min 00 s"
    assert confirm.describe_rest(opened, study, 4) == "6 trainings left, about 30.0 s"
    assert confirm.describe_status(study, 6) == "fresh seeds: 6 trainings left, about 20.0 s"


def test_a_bug_in_a_confirmation_shows_its_traceback(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(confirm.ConfirmationObjective, "_phase1", broken)
    output = io.StringIO()
    display = StudyDisplay(Console(file=output, width=120))
    plan = StudyPlan("tiny", 1, tmp_path / "runs")
    study = open_study(open_storage(None), plan, tiny_config, tiny_data)
    study.optimize(lambda trial: sum(plan.space.suggest(trial).values()), n_trials=1)
    confirmation = confirm.open_confirmation(study, tiny_config, 1)
    with pytest.raises(RepeatedFailureError):
        confirm.run_confirmation(confirmation, study, tiny_config, tiny_data, plan, display)
    assert output.getvalue().count("ZeroDivisionError: a bug of ours") == 3


def test_a_setting_is_trained_as_under_its_seed_and_nothing_is_pruned(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    output = io.StringIO()
    display = StudyDisplay(Console(file=output, width=120))
    plan = StudyPlan("tiny", 2, tmp_path / "runs")
    study = open_study(open_storage(None), plan, tiny_config, tiny_data)
    run_study(study, tiny_config, tiny_data, plan, display)
    strict = dataclasses.replace(tiny_config, min_effective_rank=0.999)
    confirmation = confirm.open_confirmation(study, strict, 1)
    confirm.run_confirmation(confirmation, study, strict, tiny_data, plan, display)
    assert [trial.state for trial in confirmation.trials] == [TrialState.COMPLETE] * 3
    (confirmed,) = confirm.gather_confirmed(study, 1)

    seed = sorted(confirm.confirmation_seeds(tiny_config.random_seed))[0]
    again = dataclasses.replace(tiny_config, random_seed=seed, **confirmed.params)
    data = copy.copy(tiny_data)
    data.config = again
    alone = open_study(open_storage(None), StudyPlan("alone", 1, tmp_path / "a"), again, data)
    run_study(alone, again, data, StudyPlan("alone", 1, tmp_path / "a"), display)
    assert alone.trials[0].params == confirmed.params
    assert alone.trials[0].value == confirmed.values[0]

    names = sorted(path.name for path in (tmp_path / "runs" / "tiny").iterdir())
    assert names == [
        *(f"confirmation_000{n}" for n in range(3)), *(f"trial_000{n}" for n in range(2)),
    ]  # fmt: skip
    shown = output.getvalue()
    assert "Confirmation 2 (3 of 3): trial" in shown
    assert "Best settings under 3 fresh seeds each: 3 trainings left, about" in shown
    assert "; 1 training left, about" in shown
    assert shown.rstrip().endswith("no trials left")  # of the study that was trained alone
    assert "; no trainings left" in shown
