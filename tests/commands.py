"""Commands as a user gives them: in a process of their own or, sooner, in the test's."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).parents[1]
CHAT = ROOT / "tests" / "datamodules" / "data" / "ultrachat_sample.jsonl"
TINY = (
    "--vocab-size 300 --num-samples 8 --num-val-samples 4 --max-seq-length 32 --context-dim 16 "
    "--identity-mapping-threshold 1 --min-effective-rank 0.05 --accelerator cpu"
).split()
"""Options under which both phases train in about a second."""
LONGEST_SECONDS = 900
"""After which a process is taken to hang: on a machine that has much to do, some take minutes."""


class Ran(NamedTuple):
    """What a command printed."""

    stdout: str
    stderr: str


Call = Callable[..., Ran]
"""Takes a `main`, its arguments, and the exit code to `expect`, which is 0 where not given."""


def command(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / script), *arguments]


def run(folder: Path, script: str, *arguments: str, expect: int = 0) -> Ran:
    """In a process of its own."""
    with started(command(script, *arguments), folder) as process:
        ran = Ran(*process.communicate())
    assert process.returncode == expect, ran.stdout + ran.stderr
    return ran


@contextlib.contextmanager
def started(
    command: Sequence[str],
    folder: Path,
    *,
    stdout: int | None = subprocess.PIPE,
    stderr: int | None = subprocess.PIPE,
    environment: Mapping[str, str] | None = None,
    seconds: float = LONGEST_SECONDS,
) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed, with all that it has started, where the block ends or time is over.

    So nothing outlives a test, and no wait for its output or its end is for ever.

    Args:
        command: program and arguments.
        folder: to run in.
        stdout, stderr: as `Popen` takes them.
        environment: instead of this process's own with one thread.
        seconds: until it is killed within the block.
    """
    own = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    with subprocess.Popen(
        command,
        cwd=folder,
        stdout=stdout,
        stderr=stderr,
        text=True,
        env=own if environment is None else environment,
        start_new_session=True,
    ) as process:
        timer = threading.Timer(seconds, kill, [process])
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """Kills a process that leads a group, the group, and the groups that its descendants lead.

    A study's workers lead one each. Once the process has gone, nothing tells whose they were.
    """
    leaders = [process.pid]
    for pid in leaders if process.returncode is None else ():
        for thread in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                leaders += map(int, thread.read_text().split())
    for pid in leaders:
        with contextlib.suppress(ProcessLookupError):  # it has gone, or is in another's group
            os.killpg(pid, signal.SIGKILL)


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """Undoes what a command changes for all of its process, or what a library does for it."""
    import optuna

    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    verbosity = optuna.logging.get_verbosity()
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        optuna.logging.set_verbosity(verbosity)
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        if "torch._dynamo" in sys.modules:
            torch.compiler.reset()
