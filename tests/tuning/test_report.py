"""Tables that can be read, however many parameters are tuned."""

import io
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from rich.console import Console, Group

from tuning.confirm import Confirmed
from tuning.display import StudyDisplay
from tuning.objective import DEVICE
from tuning.report import best_table, confirmed_table, gather, show
from tuning.search_space import TUNABLE, SearchSpace

VALUES = dict(
    zip(TUNABLE, (0.553217, 0.0123456, 0.701234, 0.00031415, 0.912345, 0.0112358), strict=True)
)

RANK = {"effective_rank": 650.2, "effective_rank_ratio": 650.2 / 768}


def cells(table: Group, width: int) -> list[list[str]]:
    output = io.StringIO()
    console = Console(file=output, width=width)
    console.print(table)
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    rows = [line.replace("┃", "│").split("│")[1:-1] for line in lines]
    return [[cell.strip() for cell in row] for row in rows if row]


def confirmed(num_settings: int, num_tuned: int = 6) -> list[Confirmed]:
    params = dict(list(VALUES.items())[:num_tuned])
    return [Confirmed(n, params, [101.25, 102.5, 103.75]) for n in range(num_settings)]


@pytest.mark.parametrize(("num_settings", "parts"), [(1, [1]), (3, [3]), (5, [3, 2])])
def test_six_parameters_are_read_at_80_columns(num_settings: int, parts: list[int]) -> None:
    read = cells(confirmed_table(confirmed(num_settings), 80), 80)
    figures = ["seed 1", "seed 2", "seed 3", "mean", "± std"]
    assert [row[0] for row in read] == ["trial", *VALUES, *figures] * len(parts)
    assert [len(row) - 1 for row in read[:: len(read) // len(parts)]] == parts
    numbers = [cell for row in read if row[0] == "trial" for cell in row[1:]]
    assert numbers == [str(n) for n in range(num_settings)]
    for row, value in zip(read[1:7], VALUES.values(), strict=True):
        assert row[1:] == [f"{value:.6g}"] * parts[0]


def test_few_parameters_are_a_row_a_setting() -> None:
    read = cells(confirmed_table(confirmed(2, 1), 80), 80)
    assert read[0] == ["trial", "dist_reg_weight", "seed 1", "seed 2", "seed 3", "mean", "± std"]
    assert read[2] == ["1", "0.553217", "101.25", "102.50", "103.75", "102.50", "1.25"]


def test_the_best_trials_too() -> None:
    trial = optuna.trial.create_trial(
        value=101.25,
        params=VALUES,
        distributions=SearchSpace(TUNABLE).distributions(),
        user_attrs=RANK,
    )
    read = cells(best_table([trial] * 3, 80), 80)
    assert ["effective rank", *["650.2/768 (84.7%)"] * 2] in read
    assert ["ema_momentum", "0.912345"] in read


def test_trials_of_different_devices_are_told_apart() -> None:
    study = optuna.create_study()

    def add(device: str) -> None:
        study.add_trial(
            optuna.create_trial(
                value=101.25,
                params={"x": 0.5},
                distributions={"x": FloatDistribution(0, 1)},
                user_attrs={DEVICE: device, **RANK},
            )
        )

    def shown() -> str:
        output = io.StringIO()
        show(gather(study), 1.0, Path("runs"), StudyDisplay(Console(file=output, width=200)))
        return output.getvalue()

    add("2 CPU threads")
    assert "CPU thread" not in shown()
    add("1 CPU thread")
    add("2 CPU threads")
    assert "computed 2 on 2 CPU threads, 1 on 1 CPU thread: each rounds its own way" in shown()
