"""Commands as a user gives them: in a process of their own or, sooner, in the test's."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
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
    ran = subprocess.run(
        command(script, *arguments),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
    )
    assert ran.returncode == expect, ran.stdout + ran.stderr
    return Ran(ran.stdout, ran.stderr)


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
