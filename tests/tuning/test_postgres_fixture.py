"""The PostgreSQL server that other tests use does what they rely on."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage

from tests.tuning.postgres import PASSWORD, Postgres

ROOT = Path(__file__).parents[2]


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_study_survives_a_restart(postgres: Postgres) -> None:
    study = optuna.create_study(storage=RDBStorage(postgres.url), study_name="kept")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    before = [trial.params for trial in study.trials]
    postgres.restart()
    again = optuna.load_study(study_name="kept", storage=RDBStorage(postgres.url))
    assert [trial.params for trial in again.trials] == before
    again.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert len(again.trials) == 4


def test_a_restart_cuts_connections(postgres: Postgres) -> None:
    engine = sqlalchemy.create_engine(postgres.url)
    with engine.connect() as connection:
        postgres.restart()
        with pytest.raises(sqlalchemy.exc.OperationalError):
            connection.execute(sqlalchemy.text("select 1"))


def test_the_server_asks_for_the_password(postgres: Postgres) -> None:
    assert PASSWORD in postgres.url
    engine = sqlalchemy.create_engine(postgres.url.replace(PASSWORD, "wrong"))
    with pytest.raises(sqlalchemy.exc.OperationalError, match="password authentication failed"):
        engine.connect()


def test_stopped_it_is_gone_and_comes_back(postgres: Postgres) -> None:
    assert is_listening(postgres.port)
    postgres.stop()
    assert not is_listening(postgres.port)
    postgres.start()
    assert is_listening(postgres.port)


def test_no_server_outlives_a_killed_test(postgres: Postgres) -> None:
    test = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from tests.tuning.postgres import Postgres\n"
            "with Postgres() as server:\n"
            "    print(server.port, server.log, flush=True)\n"
            "    input()",
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert test.stdout is not None
    port, log = test.stdout.readline().split()
    assert is_listening(int(port))
    test.send_signal(signal.SIGKILL)
    test.communicate()
    deadline = time.monotonic() + 20
    while is_listening(int(port)) or Path(log).parent.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
