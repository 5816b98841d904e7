"""Trials a minute, and what Optuna, storage, logging and display take of a trial, by workers.

Every trial is a default one, trained to its end. Useful is what Lightning's training takes without
logger and callbacks; the rest of a trial, from asking for it to telling its result, is overhead.

    python benchmarks/workers.py
    python benchmarks/workers.py --workers 4 --storage postgresql+psycopg://…
"""

import dataclasses
import functools
import io
import multiprocessing
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.options import parse, run
from config import Config, require

if TYPE_CHECKING:
    import optuna

    from datamodules.token_datamodule import TokenDataModule
    from tuning.study import StudyPlan

_STUDY = "throughput"


@dataclass(frozen=True)
class Options:
    """What to measure."""

    workers: tuple[int, ...] = (1, 2)
    """Numbers of processes, which share the cores; one after the other."""
    num_trials: int = 8
    """Trials of each, shared by the workers."""
    storage: str | None = None
    """Database URL without a study of these trials; None takes a new SQLite file for each."""
    rounds: int = 1
    """Repetitions of all, one after the other."""

    def __post_init__(self) -> None:
        require(min(self.workers, default=1) >= 1, "workers", self.workers, "numbers from 1")
        for name in ("num_trials", "rounds"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")


class Measured(NamedTuple):
    """Of one worker: seconds from the common start to its last trial's end, in all its trials, and
    in their training; number of trials."""

    wall: float
    in_trials: float
    useful: float
    num_trials: int


def main() -> None:
    given, config = parse(Options, __doc__)
    print("workers  threads  storage     trials  seconds  trials/min  overhead  s a trial")
    for round_ in range(given.rounds):
        for num_workers in given.workers:
            with tempfile.TemporaryDirectory() as folder:
                url = given.storage or f"sqlite:///{folder}/study.db"
                name = f"{_STUDY}_{num_workers}_{round_}"
                print(measure(num_workers, given.num_trials, url, config, Path(folder), name))


def measure(
    num_workers: int, num_trials: int, url: str, config: Config, folder: Path, name: str
) -> str:
    """Runs the trials; a line of the table."""
    from tuning.workers import environment_of, inherited

    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(num_workers)
    results: Any = context.Queue()
    environments = [environment_of(i, num_workers, config.accelerator) for i in range(num_workers)]
    # Before the workers, which would create it all at once, or all tell what is wrong with the input.
    _open(num_trials, url, config, folder, name)
    arguments = (num_trials, url, config, folder, name, barrier, results)
    processes = [context.Process(target=work, args=arguments) for _ in environments]
    try:
        for process, environment in zip(processes, environments, strict=True):
            with inherited(environment):
                process.start()
        measured = gather(processes, results)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
    wall = max(one.wall for one in measured)
    in_trials = sum(one.in_trials for one in measured)
    overhead = 1 - sum(one.useful for one in measured) / in_trials
    done = sum(one.num_trials for one in measured)
    return (
        f"{num_workers:7}  {environments[0]['OMP_NUM_THREADS']:>7}  {url.partition(':')[0][:10]:10}"
        f"  {done:6}  {wall:7.1f}  {60 * done / wall:10.2f}  {overhead:8.2%}  {in_trials / done:9.2f}"
    )


def gather(processes: list[Any], results: Any) -> list[Measured]:
    """One result of each; ends the benchmark where a worker failed."""
    measured: list[Measured] = []
    while len(measured) < len(processes):
        try:
            measured.append(results.get(timeout=1))
        except queue.Empty:
            if any(process.exitcode for process in processes):
                sys.exit("A worker failed.")
    for process in processes:
        process.join()
    return measured


class _Opened(NamedTuple):
    study: "optuna.Study"
    plan: "StudyPlan"
    config: Config
    datamodule: "TokenDataModule"


def _open(num_trials: int, url: str, config: Config, folder: Path, name: str) -> _Opened:
    """The study, in which nothing is pruned."""
    import optuna

    from datamodules.token_datamodule import TokenDataModule
    from tuning.storage import open_storage
    from tuning.study import StudyPlan, open_study

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    unpruned = dataclasses.replace(
        config, identity_mapping_threshold=1.0, min_token_sensitivity=0.0, min_effective_rank=0.0
    )
    datamodule = TokenDataModule(unpruned)
    datamodule.setup()
    plan = StudyPlan(name, num_trials, folder, sampler="random", pruner="none")
    study = open_study(open_storage(url), plan, unpruned, datamodule)
    return _Opened(study, plan, unpruned, datamodule)


def work(
    num_trials: int,
    url: str,
    config: Config,
    folder: Path,
    name: str,
    barrier: Barrier,
    results: Any,
) -> None:
    """A worker: takes part in the study and reports what it measured."""
    import lightning as L
    import optuna
    from lightning.pytorch.loggers import TensorBoardLogger
    from optuna_integration import PyTorchLightningPruningCallback
    from rich.console import Console

    from callbacks.convergence_stopping import ConvergenceStopping
    from callbacks.effective_rank_pruning import EffectiveRankPruning
    from callbacks.identity_mapping_pruning import IdentityMappingPruning
    from callbacks.non_finite_pruning import NonFinitePruning
    from callbacks.phase_progress import PhaseProgress
    from tuning import objective, trial_loop
    from tuning.display import StudyDisplay
    from tuning.study import run_study

    study, plan, unpruned, datamodule = _open(num_trials, url, config, folder, name)
    trials, training, extras = Clock(), Clock(), Clock()
    ends: list[float] = []
    trials.time(trial_loop._Loop, "run_one", lambda: ends.append(time.monotonic()))
    training.time(objective.Objective, "_train")
    for kind in (
        PhaseProgress, NonFinitePruning, ConvergenceStopping, IdentityMappingPruning,
        EffectiveRankPruning, PyTorchLightningPruningCallback,
    ):  # fmt: skip
        for hook in vars(L.Callback):
            if hook.startswith("on_") and getattr(kind, hook) is not getattr(L.Callback, hook):
                extras.time(kind, hook)
    for method in ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize"):
        extras.time(TensorBoardLogger, method)
    extras.time(optuna.Trial, "set_user_attr")

    display = StudyDisplay(Console(file=io.StringIO()))
    barrier.wait()
    start = time.monotonic()
    run_study(study, unpruned, datamodule, plan, display)
    # Extras outside of `_train` are no part of what it measured.
    useful = training.seconds - extras.seconds_inside(training)
    # A worker that was slow to begin may find no trial left.
    wall = max(ends, default=start) - start
    results.put(Measured(wall, trials.seconds, useful, training.calls))


class Clock:
    """Sums the wall time of methods in the main thread; of nested calls, the outermost counts."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []
        self.depth = 0

    @property
    def seconds(self) -> float:
        return sum(end - start for start, end in self.spans)

    @property
    def calls(self) -> int:
        return len(self.spans)

    def seconds_inside(self, other: "Clock") -> float:
        """Of the spans that lie within one of the other's."""
        return sum(
            end - start
            for start, end in self.spans
            if any(begin <= start and end <= until for begin, until in other.spans)
        )

    def time(self, owner: type, name: str, then: Callable[[], object] = lambda: None) -> None:
        """Has a method of a class measured, and calls `then` after it."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def timed(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread() is not threading.main_thread() or self.depth:
                return method(*arguments, **options)
            self.depth, start = 1, time.monotonic()
            try:
                return method(*arguments, **options)
            finally:
                self.depth = 0
                self.spans.append((start, time.monotonic()))
                then()

        setattr(owner, name, timed)


if __name__ == "__main__":
    run(main)
