"""Seconds of a trial beside other work, by how its threads wait for each other.

    python benchmarks/busy.py
    python benchmarks/busy.py --busy 0 4 --study="--num-samples 96"

Other work is processes that compute on one core each. An idle thread of OpenMP spins so many turns
before it sleeps; 300,000 are what it does where nobody says otherwise, and with one thread nothing
waits. Seconds are the median of the trials after the first.
"""

import contextlib
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.options import parse_alone, run
from config import require

_OPTIMIZE = Path(__file__).resolve().parent.parent / "optimize.py"


@dataclass(frozen=True)
class Options:
    """What to measure."""

    busy: tuple[int, ...] = (0, 1, 2)
    """Numbers of other processes, one after the other."""
    spins: tuple[int, ...] = (300_000, 30_000, 10_000, 1_000, 0)
    """Turns that idle threads spin (GOMP_SPINCOUNT)."""
    num_trials: int = 6
    """Trials of each study, of which the first is left out."""
    study: str = "--preset smoke --min-effective-rank 0.05"
    """Further options of optimize.py, in one."""

    def __post_init__(self) -> None:
        for name in ("busy", "spins"):
            values = getattr(self, name)
            require(min(values, default=0) >= 0, name, values, "numbers from 0")
        require(self.num_trials >= 2, "num_trials", self.num_trials, "2 or more")


def main() -> None:
    given = parse_alone(Options, __doc__)
    ways = {f"{spins:,} spins": {"GOMP_SPINCOUNT": str(spins)} for spins in given.spins}
    ways["one thread"] = {"OMP_NUM_THREADS": "1"}
    print("s a trial".ljust(15) + "".join(f"{count:4} busy" for count in given.busy))
    for name, environment in ways.items():
        print(name.ljust(15), end="", flush=True)
        for count in given.busy:
            with busy_processes(count):
                seconds = seconds_a_trial(given.num_trials, given.study, environment)
            print(f"{seconds:9.2f}", end="", flush=True)
        print()


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many other processes compute meanwhile."""
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        yield processes


def seconds_a_trial(num_trials: int, study: str, environment: dict[str, str]) -> float:
    """The median wall time of a study's trials after the first, pruned ones too.

    Args:
        num_trials: finished trials of the study.
        study: further options of optimize.py.
        environment: variables of its process, beside ours.
    """
    import optuna

    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/study.db"
        fixed = f"--n-trials {num_trials} --confirm 0 --pruner none --runs-dir runs --output x.py"
        arguments = [*fixed.split(), "--storage", url, "--study-name", "busy", *shlex.split(study)]
        ended = subprocess.run(
            [sys.executable, _OPTIMIZE, *arguments],
            env={**os.environ, **environment},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if ended.returncode:
            sys.exit(f"optimize.py ended with {ended.returncode}:\n{ended.stdout}")
        trials = optuna.load_study(study_name="busy", storage=url).get_trials()
    durations = [trial.duration for trial in trials if trial.duration is not None]
    return statistics.median(duration.total_seconds() for duration in durations[1:])


if __name__ == "__main__":
    run(main)
