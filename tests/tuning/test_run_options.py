"""Devices, and what cannot be shared by them."""

import math

import pytest

from config import InputError
from tuning.run_options import (
    Processes,
    RunOptions,
    check_divides,
    is_first_process,
    processes_of,
    started_from_outside,
)

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "LOCAL_WORLD_SIZE": "4",
    "WORLD_SIZE": "8",
    "RANK": "5",
    "LOCAL_RANK": "1",
}


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("devices", 0),
        ("num_nodes", 0),
        ("patience", 0),
        ("accumulate_grad_batches", 0),
        ("checkpoint_minutes", 0.0),
        ("checkpoint_minutes", math.inf),
        ("checkpoint_minutes", math.nan),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^--{field.replace('_', '-')} is {value}; it must be "):
        RunOptions(**{field: value})  # type: ignore[arg-type]


def test_options_say_how_many_processes_there_are() -> None:
    assert processes_of(RunOptions(devices=4, num_nodes=2), "cpu").world_size == 8
    assert processes_of(RunOptions(devices="auto"), "cpu") == Processes(1, 1)


@pytest.mark.usefixtures("torchrun")
def test_torchrun_says_how_many_processes_there_are() -> None:
    assert processes_of(RunOptions(), "cpu") == Processes(4, 2)
    assert processes_of(RunOptions(devices=4, num_nodes=2), "cpu") == Processes(4, 2)
    with pytest.raises(InputError, match=r"^--devices is 3, but torchrun started 4"):
        processes_of(RunOptions(devices=3), "cpu")
    assert started_from_outside()
    assert not is_first_process()


@pytest.mark.parametrize(
    ("environment", "is_first"),
    [({}, True), ({"LOCAL_RANK": "1"}, False), ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
     ({"RANK": "0", "NODE_RANK": "1"}, True)],
)  # fmt: skip
def test_one_process_speaks(
    environment: dict[str, str], is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == is_first


@pytest.mark.parametrize(
    ("batch_size", "num_rows", "num_val_rows", "message"),
    [
        (6, 48, 8, "--batch-size is 6; it must be a multiple of the 4 processes"),
        (8, 50, 8, "take --num-samples 48"),
        (8, 48, 3, "take --num-val-samples 4 or more"),
    ],
)
def test_what_does_not_divide_is_refused(
    batch_size: int, num_rows: int, num_val_rows: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_divides(Processes(2, 2), batch_size, num_rows, num_val_rows)
    check_divides(Processes(2, 2), 8, 48, 4)
