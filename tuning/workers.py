"""Starts several workers of one study on this machine, each a process of its own."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import cast

import torch

from config import Accelerator, InputError
from tuning.display import StudyDisplay
from tuning.signals import Terminated
from tuning.worker_entry import SIGNALS, Work, enter

_STATUS_SECONDS = 2.0
_FAREWELL_SECONDS = 60.0


def count_workers(asked: str, accelerator: Accelerator) -> int:
    """The number of workers that `--workers` asks for.

    Raises:
        InputError: it is neither `auto` nor a number from 1.
    """
    if asked != "auto":
        if not asked.isdecimal() or int(asked) < 1:
            raise InputError(f"--workers is {asked!r}; it must be `auto` or 1 or more.")
        return int(asked)
    num_gpus = 0 if accelerator == "cpu" else torch.cuda.device_count()
    return num_gpus or num_cores()


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment_of(index: int, num_workers: int, accelerator: Accelerator) -> dict[str, str]:
    """A worker's share of the machine: its threads, and one of the GPUs."""
    shared = {"OMP_NUM_THREADS": str(max(1, num_cores() // num_workers))}
    visible = _visible_gpus() if accelerator != "cpu" else []
    if visible:
        shared["CUDA_VISIBLE_DEVICES"] = visible[index % len(visible)]
    return shared


@contextlib.contextmanager
def inherited(environment: Mapping[str, str]) -> Iterator[None]:
    """What is started inside has these variables, from its first import on; we have not, afterwards."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def run_workers(
    work: Work,
    environments: Sequence[dict[str, str]],
    display: StudyDisplay,
    *,
    deadline: float | None = None,
    on_lost: Callable[[int, int], None],
    status: Callable[[], str],
) -> int:
    """Runs a worker for every environment until all have ended; shows their lines in one place.

    A signal is passed on to all of them.

    Args:
        work: what a worker does; importable by name.
        environments: variables of each worker.
        display: where the lines go, with the worker's number before them.
        deadline: on the clock of `time.monotonic`: none begins after it, and one that has not ended
            a minute later is killed.
        on_lost: is called with the process number and the exit code of a worker that was killed.
        status: one line for a terminal's last row, asked for every 2 seconds.

    Returns:
        0 if one of the workers ended well, else the highest exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM, after every worker has ended.
    """
    crew = _Crew(display, on_lost, status)
    try:
        for index, environment in enumerate(environments):
            if deadline is None or time.monotonic() < deadline:
                crew.start(index, environment, work)
        crew.wait(None if deadline is None else deadline + _FAREWELL_SECONDS)
        crew.kill()
        return crew.exit_code
    except KeyboardInterrupt as interrupt:
        terminated = isinstance(interrupt, Terminated)
        crew.send(signal.SIGTERM if terminated else signal.SIGINT)
        crew.wait(time.monotonic() + _FAREWELL_SECONDS)
        raise
    finally:
        crew.kill()


class _Crew:
    def __init__(
        self,
        display: StudyDisplay,
        on_lost: Callable[[int, int], None],
        status: Callable[[], str],
    ) -> None:
        self.display = display
        self.on_lost = on_lost
        self.status = status
        self.processes: list[SpawnProcess] = []
        self.lines: dict[Connection, int] = {}
        self.exit_codes: list[int] = []
        self.ended: set[int] = set()

    def start(self, index: int, environment: dict[str, str], work: Work) -> None:
        # A new interpreter each, which reads the variables before it loads a library.
        context = multiprocessing.get_context("spawn")
        receiving, sending = context.Pipe(duplex=False)
        with inherited(environment), _signals_blocked():
            process = context.Process(target=enter, args=(work, sending))
            process.start()
            self.processes.append(process)
        sending.close()
        self.lines[receiving] = index

    @property
    def exit_code(self) -> int:
        return 0 if 0 in self.exit_codes else max(self.exit_codes, default=0)

    def wait(self, deadline: float | None) -> None:
        with self.display.status_row(self.status, _STATUS_SECONDS):
            while self.lines and (deadline is None or time.monotonic() < deadline):
                for ready in multiprocessing.connection.wait(list(self.lines), 0.5):
                    self._show(cast(Connection, ready))
                self._find_ended()
        for process in self.processes:
            process.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        self._find_ended()

    def send(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)

    def kill(self) -> None:
        for process in self.processes:
            if process.is_alive():
                process.kill()
                process.join()
        self._find_ended()

    def _show(self, connection: Connection) -> None:
        try:
            line = connection.recv()
        except EOFError:
            del self.lines[connection]
            return
        self.display.line(f"[worker {self.lines[connection]}] {line}")

    def _find_ended(self) -> None:
        for index, process in enumerate(self.processes):
            code = process.exitcode
            if code is None or index in self.ended:
                continue
            self.ended.add(index)
            self.exit_codes.append(code if code >= 0 else 128 - code)
            if code < 0 and process.pid is not None:
                self.display.line(f"[worker {index}] was ended by signal {-code}")
                self.on_lost(process.pid, code)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """For a process that is started meanwhile, too, until it unblocks them."""
    resource_tracker.ensure_running()  # else it starts with the process, and unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _visible_gpus() -> list[str]:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    return [str(index) for index in range(torch.cuda.device_count())]
