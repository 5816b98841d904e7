"""Databases that several workers open at once."""

import multiprocessing
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import optuna
import pytest

from tests.tuning.postgres import Postgres
from tuning.storage import open_storage

NUM_WORKERS = 8


def open_at_once(url: str) -> list[str]:
    """What went wrong in each of several processes that find the database empty."""
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(NUM_WORKERS), context.Queue()
    processes = [
        context.Process(target=_open, args=(url, barrier, results)) for _ in range(NUM_WORKERS)
    ]
    for process in processes:
        process.start()
    errors = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    return [error for error in errors if error]


def _open(url: str, barrier: Barrier, results: "Queue[str]") -> None:
    barrier.wait(30)
    try:
        optuna.create_study(storage=open_storage(url), study_name="s", load_if_exists=True)
        results.put("")
    except BaseException as error:
        results.put(repr(error))
        raise


@pytest.mark.parametrize("attempt", range(3))
def test_workers_that_find_an_empty_file_at_once(tmp_path: Path, attempt: int) -> None:
    assert open_at_once(f"sqlite:///{tmp_path / 'study.db'}") == []


def test_workers_that_find_an_empty_server_at_once(postgres: Postgres) -> None:
    assert open_at_once(postgres.url) == []
