"""Several workers of one study, each a process, as a user starts them."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import optuna
import pytest
from optuna.storages import GrpcStorageProxy
from optuna.trial import FrozenTrial, TrialState

from config import InputError
from tests.commands import CHAT, TINY, command, started
from tests.tuning.postgres import PASSWORD, Postgres, free_port
from tuning.quota import FINISHED
from tuning.storage import open_storage
from tuning.trial_loop import WORKER
from tuning.workers import count_workers, environment_of, inherited, num_cores

Process = subprocess.Popen[str]
SHARED = [*"--preset smoke --confirm 0 --study-name shared --corpus".split(), str(CHAT), *TINY]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def study(
    folder: Path, cache: str, url: str | None, *arguments: str
) -> AbstractContextManager[Process]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    environment.pop("OMP_NUM_THREADS", None)
    if url is not None:
        environment["OPTUNA_STORAGE"] = url
    output = ["--output", str(folder / "best.py"), "--cache-dir", cache]
    search = command("optimize.py", *SHARED, *output, *arguments)
    return started(search, folder, stderr=subprocess.STDOUT, environment=environment)


def finish(process: Process, code: int = 0) -> str:
    seen, _ = process.communicate()
    assert process.returncode == code, seen
    assert "Traceback" not in seen, seen
    return seen


def trials_of(url: str) -> list[FrozenTrial]:
    return optuna.load_study(study_name="shared", storage=open_storage(url)).trials


def assert_exact(trials: list[FrozenTrial], num_trials: int, num_workers: int) -> None:
    """None lost, none twice, all workers at work."""
    finished = [trial for trial in trials if trial.state in FINISHED]
    assert len(finished) == num_trials
    assert TrialState.RUNNING not in {trial.state for trial in trials}
    assert len({trial.params["dist_reg_weight"] for trial in finished}) == num_trials
    assert len({trial.user_attrs[WORKER] for trial in finished}) == num_workers
    assert [trial.number for trial in trials] == list(range(len(trials)))


def after(
    process: Process,
    url: str,
    num_finished: int,
    act: Callable[[list[FrozenTrial]], bool],
) -> threading.Thread:
    """Acts once so many trials have finished and some run, again until `act` says that it has.

    For as long as the process lives: on a busy machine it is slow to start.
    """

    def watch() -> None:
        while process.poll() is None:
            try:
                trials = trials_of(url)
            except KeyError:  # no study yet
                trials = []
            states = [trial.state for trial in trials]
            if (
                sum(state in FINISHED for state in states) >= num_finished
                and (TrialState.RUNNING in states)
                and act(trials)
            ):
                return
            time.sleep(0.1)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_four_workers_on_a_database_that_is_restarted(
    tmp_path: Path, cache: str, postgres: Postgres
) -> None:
    restarted = []

    def restart(_: list[FrozenTrial]) -> bool:
        postgres.stop()
        time.sleep(1)
        postgres.start()
        restarted.append(True)
        return True

    with study(tmp_path, cache, postgres.url, "--n-trials", "40", "--workers", "4") as process:
        thread = after(process, postgres.url, 10, restart)
        seen = finish(process)
    thread.join()
    assert restarted
    assert_exact(trials_of(postgres.url), 40, 4)
    assert re.search(r"Study ended after .*: \d+ complete, \d+ pruned", seen)
    assert "Storage, from OPTUNA_STORAGE: postgresql+psycopg://study:***@127.0.0.1" in seen
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert tmp_path / "best.py" in written
    assert PASSWORD not in seen
    assert not any(PASSWORD.encode() in path.read_bytes() for path in written)


def test_four_workers_on_sqlite_of_which_one_is_killed(tmp_path: Path, cache: str) -> None:
    """Its trial is queued again at once, and the others do what is left."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    killed = []

    def kill(trials: list[FrozenTrial]) -> bool:
        # One that was slow to start and has finished nothing would be missing from the workers.
        finished = {t.user_attrs[WORKER] for t in trials if t.state in FINISHED}
        running = {t.user_attrs.get(WORKER) for t in trials if t.state == TrialState.RUNNING}
        for worker in sorted(finished & running)[:1]:
            os.kill(int(worker.rpartition(":")[2]), signal.SIGKILL)
            killed.append(worker)
        return bool(killed)

    with study(tmp_path, cache, url, "--n-trials", "40", "--workers", "4") as process:
        thread = after(process, url, 8, kill)
        seen = finish(process)
    thread.join()
    assert killed
    assert "was ended by signal 9" in seen
    trials = trials_of(url)
    assert_exact(trials, 40, 4)
    lost = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert {trial.user_attrs[WORKER] for trial in lost} <= set(killed)
    for trial in lost:
        again = [
            other for other in trials if other.system_attrs.get("failed_trial") == trial.number
        ]
        assert len(again) == 1
        # One that was killed before it had asked for its parameters has none to repeat.
        assert again[0].params == (trial.params or again[0].params)
        assert f"trial {trial.number} ended with it and is queued again" in seen


def _weights(trials: list[FrozenTrial]) -> list[float]:
    return sorted(trial.params["dist_reg_weight"] for trial in trials)


def test_a_signal_ends_all_workers_and_leaves_no_ghost(tmp_path: Path, cache: str) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"

    def end(_: list[FrozenTrial]) -> bool:
        process.send_signal(signal.SIGTERM)
        return True

    with study(tmp_path, cache, url, "--n-trials", "500", "--workers", "2") as process:
        after(process, url, 2, end).join()
        seen = finish(process, 143)
    trials = trials_of(url)
    assert TrialState.RUNNING not in {trial.state for trial in trials}
    assert "Study ended after" in seen
    cut_off = [trial for trial in trials if trial.user_attrs.get("interrupted") == "signal"]
    queued = [trial for trial in trials if trial.state == TrialState.WAITING]
    # Of two workers that are cut off at once, either may be the first to queue again.
    assert _weights(cut_off) == _weights(queued)


def test_eight_workers_through_a_proxy(tmp_path: Path, cache: str) -> None:
    port = free_port()
    url = f"sqlite:///{tmp_path / 'study.db'}"
    proxy = command("docs/examples/grpc_proxy.py", "--host", "127.0.0.1", "--port", str(port))
    served_url = {**os.environ, "OPTUNA_STORAGE": url}
    with started(proxy, tmp_path, stdout=None, stderr=None, environment=served_url):
        GrpcStorageProxy(host="127.0.0.1", port=port).wait_server_ready(timeout=60)
        shared = ["--n-trials", "32", "--workers", "8"]
        with study(tmp_path, cache, f"grpc://127.0.0.1:{port}", *shared) as process:
            seen = finish(process)
    assert "8 workers, 1 thread each" in seen
    assert_exact(trials_of(url), 32, 8)


def test_workers_without_a_storage_share_one_of_their_own(tmp_path: Path, cache: str) -> None:
    with study(tmp_path, cache, None, "--n-trials", "6", "--workers", "2") as process:
        seen = finish(process)
    assert re.search(r"[1-6] complete", seen)
    assert "[worker 0]" in seen
    assert "[worker 1]" in seen
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.py", "runs"]
    assert len(list((tmp_path / "runs" / "shared").iterdir())) == 6


def test_every_worker_has_its_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = [int(environment_of(i, 2, "cpu")["OMP_NUM_THREADS"]) for i in range(2)]
    assert threads == [max(1, num_cores() // 2)] * 2
    assert environment_of(0, 1000, "cpu") == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    given = [environment_of(index, 4, "auto")["CUDA_VISIBLE_DEVICES"] for index in range(4)]
    assert given == ["3", "5", "3", "5"]
    assert "CUDA_VISIBLE_DEVICES" not in environment_of(0, 4, "cpu")


def test_what_a_worker_inherits_is_not_left_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    seen = []
    for index in range(3):
        with inherited(environment_of(index, 2, "auto")):
            seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
            assert os.environ["OMP_NUM_THREADS"]
        assert os.environ == before
    assert seen == ["3", "5", "3"]
    with pytest.raises(OSError, match="no process"), inherited({"OMP_NUM_THREADS": "1"}):
        raise OSError("no process")
    assert os.environ == before


@pytest.mark.parametrize("asked", ["0", "-1", "many", "1.5"])
def test_a_number_of_workers_that_is_none(asked: str) -> None:
    with pytest.raises(InputError, match="it must be `auto` or 1 or more"):
        count_workers(asked, "cpu")
    assert count_workers("3", "cpu") == 3
    assert count_workers("auto", "cpu") == num_cores()
