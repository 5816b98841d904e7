"""What no study can be made of: one line and exit code 2, before anything is made."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import command_line
import optimize

CHAT = Path(__file__).parents[1] / "datamodules" / "data" / "ultrachat_sample.jsonl"
SMALL = f"--vocab-size 300 --max-seq-length 32 --accelerator cpu --corpus {CHAT}".split()


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[list[str]], str]:
    """Runs the command in this process, which has imported already; what it says of bad input."""

    def run(arguments: list[str]) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["optimize.py", *arguments])
        monkeypatch.setattr(command_line, "listen_for_signals", lambda: None)
        with pytest.raises(SystemExit) as ended:
            command_line.run(optimize.main)
        told = capfd.readouterr().err
        assert ended.value.code == 2, told
        assert len(told.splitlines()) == 1, told
        return told

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--timeout", "inf"], "--timeout is inf; it must be a positive number up to"),
        (["--trial-timeout", "1e9"], "--trial-timeout is 1000000000.0; it must be"),
        (["--trial-timeout", "nan"], "--trial-timeout is nan; it must be"),
        (["--workers", "2", "--storage", "sqlite://"], "--storage sqlite:// is each process's own"),
        (["--workers", "2", "--storage", "sqlite:///:memory:"], "is each process's own"),
    ],
)
def test_options_of_a_study(
    refused: Callable[[list[str]], str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert message in refused([*arguments, *SMALL])
    assert list(tmp_path.iterdir()) == []


def test_cleaning_a_file_that_is_not_there(
    refused: Callable[[list[str]], str], tmp_path: Path
) -> None:
    assert "there is no file sturdy.db" in refused(["clean", "--storage", "sqlite:///sturdy.db"])
    assert list(tmp_path.iterdir()) == []
