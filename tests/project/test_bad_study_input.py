"""What no study can be made of: one line and exit code 2, before anything is made."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

import command_line
import optimize

CHAT = Path(__file__).parents[1] / "datamodules" / "data" / "ultrachat_sample.jsonl"
TINY = (
    "--preset smoke --vocab-size 300 --num-samples 8 --num-val-samples 4 --max-seq-length 32 "
    "--context-dim 16 --identity-mapping-threshold 1 --min-effective-rank 0.05 --accelerator cpu"
).split()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return ["--cache-dir", str(tmp_path_factory.mktemp("cache")), "--corpus", str(CHAT)]


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
        (["--study-name", "a" * 300], "of 200 bytes at most"),
        (["--study-name", "a\nb"], "printable"),
        (["--output", "/proc/x.py"], "--output /proc cannot be written to"),
        (["--runs-dir", "/proc/runs"], "--runs-dir /proc/runs cannot be written to"),
    ],
)
def test_options_of_a_study(
    refused: Callable[[list[str]], str],
    cache: list[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    assert message in refused([*arguments, *TINY, *cache])
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_runs_are_to_be(
    refused: Callable[[list[str]], str], cache: list[str], tmp_path: Path
) -> None:
    (tmp_path / "runs").touch()
    storage = ["--storage", "sqlite:///study.db"]
    told = refused([*storage, *TINY, *cache])
    assert told == "error: --runs-dir runs cannot be written to: File exists.\n"
    url = f"sqlite:///{tmp_path / 'study.db'}"
    assert optuna.get_all_study_names(storage=url) == []


def test_a_continued_study_keeps_its_logs_where_they_are(
    tmp_path: Path, cache: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = tmp_path / "runs" / "dist_reg_weight_optimization"
    name.parent.mkdir()
    name.write_text("not a study's")
    arguments = ["--n-trials", "1", "--storage", f"sqlite:///{tmp_path / 'study.db'}"]
    arguments += ["--output", str(tmp_path / "best.py"), *TINY, *cache]
    ran = []
    for folder in ("runs", "other"):
        runs = ["--runs-dir", str(tmp_path / folder)]
        assert optimize._run([*arguments, *runs], time.monotonic()) == 0
        ran.append(capsys.readouterr().out)
    ignored = f"--runs-dir {tmp_path / 'other'} is ignored."
    assert [ignored in out for out in ran] == [False, True]
    assert all(f"TensorBoard logs: {name}_2" in out for out in ran)
    assert not (tmp_path / "other").exists()


def test_cleaning_a_file_that_is_not_there(
    refused: Callable[[list[str]], str], tmp_path: Path
) -> None:
    assert "there is no file sturdy.db" in refused(["clean", "--storage", "sqlite:///sturdy.db"])
    assert list(tmp_path.iterdir()) == []
