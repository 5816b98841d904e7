"""What other tests start commands with: nothing outlives it, and nothing stays changed."""

import os
import signal
import sys
import time
from pathlib import Path

import optuna
import pytest
import torch

from tests.commands import LONGEST_SECONDS, Call, started

# One of its children leads a session, as a study's workers do.
PARENT = """
import subprocess
away, near = (subprocess.Popen(["sleep", "600"], start_new_session=new) for new in (True, False))
print(away.pid, near.pid, flush=True)
away.wait()
"""


def is_alive(pid: int) -> bool:
    """Not so once it is dead, whether or not anybody has asked for its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_outlives_the_block_in_which_it_was_started(tmp_path: Path) -> None:
    pids: list[int] = []

    def broken() -> None:
        with started([sys.executable, "-c", PARENT], tmp_path) as process:
            assert process.stdout is not None
            pids.extend([process.pid, *map(int, process.stdout.readline().split())])
            assert len([pid for pid in pids if is_alive(pid)]) == 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    end = time.monotonic() + LONGEST_SECONDS
    while any(map(is_alive, pids)):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_process_whose_time_is_over_is_killed(tmp_path: Path) -> None:
    with started(["sleep", "600"], tmp_path, seconds=0.1) as process:
        assert process.communicate() == ("", "")
        assert process.returncode == -signal.SIGKILL


def test_a_call_leaves_its_process_as_it_was(call: Call) -> None:
    def state() -> tuple[object, ...]:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        torch_state = torch.get_num_threads(), torch.get_float32_matmul_precision()
        return dict(os.environ), handlers, optuna.logging.get_verbosity(), torch_state

    def main() -> int:
        os.environ["TRAIN_STARTED"] = "now"
        del os.environ["PATH"]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        torch.set_num_threads(3)
        torch.set_float32_matmul_precision("high")
        changed.append(state())
        return 3

    before, changed = state(), []
    call(main, expect=3)
    assert all(one != other for one, other in zip(before, *changed, strict=True))
    assert state() == before
