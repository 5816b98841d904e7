"""Databases that several workers open at once, and trials that are queued again."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from tests.tuning.postgres import Postgres
from tuning.storage import open_storage, queue_again, queue_interrupted, retry_history

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


@pytest.mark.parametrize("queue", [queue_again, queue_interrupted])
def test_a_repeated_trial_is_drawn_as_before_and_measured_anew(
    queue: Callable[[optuna.Study, FrozenTrial], None], recwarn: pytest.WarningsRecorder
) -> None:
    study = optuna.create_study(
        sampler=optuna.samplers.GridSampler({"x": [0.25, 0.5]}),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1),
    )
    first = study.ask()
    x = first.suggest_float("x", 0.0, 1.0)
    first.set_user_attr("rank", 3.0)
    first.set_constraint("rank", -1.0)
    first.report(5.0, 1)
    first.should_prune()
    stored = study.trials[0]
    assert {"constraints:rank", "completed_rung_0"} <= set(stored.system_attrs)
    study.tell(first, state=TrialState.FAIL)
    queue(study, study.trials[0])

    again = study.ask()
    assert again.suggest_float("x", 0.0, 1.0) == x
    repeated = study.trials[1]
    assert repeated.system_attrs["grid_id"] == stored.system_attrs["grid_id"]
    assert retry_history(repeated) == [0]
    assert repeated.user_attrs == {}
    assert "completed_rung_0" not in repeated.system_attrs
    again.set_constraint("rank", 2.0)
    assert study.trials[1].system_attrs["constraints:rank"] == 2.0
    assert [warning for warning in recwarn if "constraint" in str(warning.message)] == []
