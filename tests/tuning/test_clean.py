"""Ghosts are shown and ended; what lives is left."""

import datetime
import os
import socket
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

import optimize
from config import InputError
from tuning.clean import end_ghosts, load_studies, running_trials
from tuning.storage import open_storage
from tuning.trial_loop import WORKER, name_of


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def study(url: str) -> optuna.Study:
    return optuna.create_study(storage=open_storage(url), study_name="haunted")


def begin(study: optuna.Study, worker: str | None) -> int:
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    if worker is not None:
        trial.set_user_attr(WORKER, worker)
    return trial.number


def pid_that_is_gone() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_process_that_is_gone_is_a_ghost_and_its_parameters_are_queued(
    study: optuna.Study, url: str
) -> None:
    gone = begin(study, name_of(pid_that_is_gone()))
    alive = begin(study, name_of(os.getpid()))
    elsewhere = begin(study, "another-host:1")
    new = begin(study, None)
    (study,) = load_studies(url, "haunted")
    reasons = [one.ghost for one in running_trials(study)]
    assert reasons == ["its process is gone", "", "", ""]
    ended, left = end_ghosts(study, every=False)
    assert [one.trial.number for one in ended] == [gone]
    assert [one.trial.number for one in left] == [alive, elsewhere, new]
    assert [trial.state.name for trial in study.trials] == ["FAIL", *["RUNNING"] * 3, "WAITING"]
    assert study.ask().suggest_float("x", 0, 1) == study.trials[gone].params["x"]


def test_all_are_ended_where_no_worker_is_alive(study: optuna.Study) -> None:
    begin(study, f"{socket.gethostname()}:{os.getpid()}")
    ended, left = end_ghosts(study, every=True)
    assert len(ended) == 1
    assert left == []
    assert [trial.state.name for trial in study.trials] == ["FAIL", "WAITING"]
    assert end_ghosts(study, every=True) == ([], [])


def test_a_silent_trial_of_another_host_is_a_ghost(
    study: optuna.Study, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = begin(study, "another-host:1")
    storage = load_studies(url, "haunted")[0]._storage
    storage._backend.record_heartbeat(study.trials[number]._trial_id)  # type: ignore[attr-defined]
    assert running_trials(load_studies(url, "haunted")[0])[0].ghost == ""
    import sqlalchemy

    long_ago = datetime.datetime.now() - datetime.timedelta(days=1)
    with sqlalchemy.create_engine(url).begin() as connection:
        connection.execute(
            sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = :t"), {"t": str(long_ago)}
        )
    (found,) = running_trials(load_studies(url, "haunted")[0])
    assert found.ghost == "silent for more than 120 s"


def test_a_study_that_is_not_there(study: optuna.Study, url: str) -> None:
    with pytest.raises(InputError, match="'other' is not in the storage; it has haunted"):
        load_studies(url, "other")


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        load_studies(f"sqlite:///{tmp_path / 'sturdy.db'}", "haunted")
    assert list(tmp_path.iterdir()) == []


def test_a_ghost_of_a_confirmation_is_ended_with_those_of_its_study(
    study: optuna.Study, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("haunted_confirmation", "haunted_confirmation_0a1b2c3d", "haunted_confirmation_x"):
        other = optuna.create_study(storage=study._storage, study_name=name)
        begin(other, name_of(pid_that_is_gone()))
    assert optimize._clean(optimize.CleanOptions(storage=url, study_name="haunted")) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in told] == [
        "Confirmation 0",
        "Confirmation 0",
        "2 ended",
    ]
