"""How a command begins and ends: what it sets for PyTorch, exit codes, what is told in one line."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import command_line
from config import InputError
from lightning_modules.checkpoint_io import save_whole
from tuning.signals import Terminated


@pytest.fixture(autouse=True)
def _no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "listen_for_signals", lambda: None)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))


def exit_code(main: Callable[[], int]) -> object:
    with pytest.raises(SystemExit) as ended:
        command_line.run(main)
    return ended.value.code


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_idle_threads_soon_sleep_unless_the_user_says_otherwise(
    given: dict[str, str], spins: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        os.environ.pop(name, None)
    os.environ.update(given)
    seen = []
    exit_code(lambda: seen.append(os.environ.get("GOMP_SPINCOUNT")) or 0)
    assert seen == [spins]


def test_a_script_imports_pytorch_when_it_runs() -> None:
    code = "import sys, optimize, train, generate; sys.exit('torch' in sys.modules)"
    root = Path(command_line.__file__).parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (Terminated(), 143), (InputError("--seed is -1."), 2)],
)
def test_how_it_ended_is_its_exit_code(error: BaseException, code: int) -> None:
    def fail() -> int:
        raise error

    assert exit_code(fail) == code
    assert exit_code(lambda: 0) == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("torch_saves", [False, True])
def test_a_full_disk_is_one_line_and_exit_code_1(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    torch_saves: bool,
) -> None:
    def write() -> int:
        if torch_saves:
            save_whole({"weight": torch.zeros(1000)}, tmp_path / "x")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "open", lambda *_: _Full(500, code))
    assert exit_code(write) == 1
    assert capsys.readouterr().err == f"error: a file could not be written: {os.strerror(code)}.\n"


def test_a_full_disk_that_a_library_tells_in_its_text_alone_is_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def write() -> int:
        raise Exception("No space left on device (os error 28)")

    assert exit_code(write) == 1
    assert "could not be written: No space left on device." in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied"),
        OSError("no number"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
        RuntimeError("bug"),
        ValueError("bug"),
    ],
)
def test_any_other_error_keeps_its_traceback(error: Exception) -> None:
    def fail() -> int:
        raise error

    with pytest.raises(type(error)) as raised:
        command_line.run(fail)
    assert raised.value is error


def test_a_disk_that_fails_otherwise_is_no_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "open", lambda *_: _Full(500, errno.EIO))
    with pytest.raises(RuntimeError, match="inline_container"):
        command_line.run(lambda: save_whole({"weight": torch.zeros(1000)}, tmp_path / "x"))


class _Full:
    """A file on a disk that has room for a number of bytes."""

    def __init__(self, num_bytes: int, code: int) -> None:
        self.num_bytes = num_bytes
        self.code = code

    def __enter__(self) -> "_Full":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, part: bytes) -> int:
        self.num_bytes -= len(part)
        if self.num_bytes < 0:
            raise OSError(self.code, os.strerror(self.code))
        return len(part)

    def flush(self) -> None:
        pass
