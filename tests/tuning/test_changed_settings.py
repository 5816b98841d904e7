"""A study that goes on under other settings: what is told, confirmed and written is of one kind."""

import dataclasses
import io
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from config import Config
from datamodules.token_datamodule import TokenDataModule
from tuning import confirm, report
from tuning.display import StudyDisplay
from tuning.search_space import DEFAULT_SPACE, parse_search_space
from tuning.storage import open_storage
from tuning.study import (
    CHANGED_SETTINGS,
    StudyPlan,
    best_trial,
    changed_settings,
    open_study,
    run_study,
)

TWO = parse_search_space("neighbour_share,contraction_weight")


def study_of(*trials: tuple[dict[str, float], float, str]) -> optuna.Study:
    """Complete trials of these parameters, values and changed settings."""
    study = optuna.create_study(study_name="known")
    for params, value, changed in trials:
        space = TWO if len(params) == 2 else DEFAULT_SPACE
        attributes = {"effective_rank": 8.0, "effective_rank_ratio": 0.5}
        study.add_trial(
            optuna.trial.create_trial(
                value=value,
                params=params,
                distributions=space.distributions(),
                user_attrs=attributes | ({CHANGED_SETTINGS: changed} if changed else {}),
            )
        )
    return study


def shown(table: object) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


FIRST = ({"dist_reg_weight": 0.55}, 10.0, "")
SECOND = ({"neighbour_share": 0.7, "contraction_weight": 0.01}, 20.0, "other")


def test_the_winner_is_of_the_settings_as_they_are_now() -> None:
    study = study_of(FIRST, SECOND)
    found = report.gather(study, changed="other")
    assert found.winner == SECOND[0]
    assert "trial 1 of study" in report.provenance(found, "known")
    assert report.gather(study).winner == FIRST[0]
    assert best_trial(study, "other").number == 1  # type: ignore[union-attr]
    assert confirm.num_settings(5, study, "other") == 1


def test_nothing_is_written_where_no_trial_is_of_these_settings() -> None:
    found = report.gather(study_of(FIRST), changed="other")
    assert not found.has_winner
    assert "under these settings; no configuration" in report.explain_nothing_complete(found)


def test_what_a_trial_does_not_have_is_blank_in_the_table() -> None:
    found = report.gather(study_of(FIRST, SECOND), changed="other")
    rows = [
        line.split("│")[1:-1] for line in shown(report.best_table(found.best, 120, found.others))
    ]
    cells = [[cell.strip() for cell in row[:5]] for row in rows if row]
    assert cells == [["1", "0.7", "0.01", "", "20.00"], ["0*", "", "", "0.55", "10.00"]]


def test_other_settings_are_confirmed_by_themselves() -> None:
    """What was queued under the first ones must not be trained under the second."""
    study = study_of(FIRST, SECOND)
    queued = []
    for changed in ("", "other"):
        opened = confirm.open_confirmation(study, Config(), 2, changed)
        queued.append([trial.system_attrs["fixed_params"] for trial in opened.trials])
    assert [len(trials) for trials in queued] == [3, 3]
    assert [{params["trial"] for params in trials} for trials in queued] == [{0}, {1}]
    assert all(params.keys() > SECOND[0].keys() for params in queued[1])


def test_another_search_space_and_fewer_epochs(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    """The setting that is confirmed is the one that is written: nothing is drawn anew per seed."""
    display = StudyDisplay(Console(file=io.StringIO()))
    storage = open_storage(None)
    longer = dataclasses.replace(tiny_config, phase2_epochs=4)
    plan = StudyPlan("tiny", 1, tmp_path / "runs")
    study = open_study(storage, plan, longer, tiny_data)
    run_study(study, longer, tiny_data, plan, display)

    plan = dataclasses.replace(plan, num_trials=2, space=TWO, allow_changed_settings=True)
    study = open_study(storage, plan, tiny_config, tiny_data)
    run_study(study, tiny_config, tiny_data, plan, display)
    changed = changed_settings(study, tiny_config, tiny_data, TWO)
    assert "phase2_epochs was 4 and is 2" in changed
    opened = confirm.open_confirmation(study, tiny_config, 2, changed)
    confirm.run_confirmation(opened, study, tiny_config, tiny_data, plan, display)
    (setting,) = confirm.gather_confirmed(study, 2, changed)
    assert setting.trial == 1
    assert setting.params.keys() == TWO.ranges.keys()
    assert all(trial.params.items() > setting.params.items() for trial in opened.trials)
    assert len(opened.trials) == 3
    found = report.gather(study, [setting], changed)
    assert found.winner == found.best[0].params == setting.params
    assert found.best[0].value == min(found.best[0].intermediate_values.values())
    folders = {path.name.rpartition("_")[0] for path in (tmp_path / "runs" / "tiny").iterdir()}
    assert folders == {"trial", opened.study_name.removeprefix("tiny_")}


@pytest.mark.parametrize("changed", ["", "other"])
def test_a_status_is_of_the_confirmation_of_these_settings(changed: str) -> None:
    study = study_of(FIRST, SECOND)
    confirm.open_confirmation(study, Config(), 1, changed)
    assert confirm.describe_status(study, 1, changed).startswith("fresh seeds: 3 trainings left")
    assert confirm.describe_status(study, 1, "other" if not changed else "") == ""
