"""train.py in the test's own process: what a user gets wrong, and how a run ends that cannot go on."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import command_line
import train
from config import InputError
from tuning.full_length import FullRun

CHAT = Path(__file__).parents[1] / "datamodules" / "data" / "ultrachat_sample.jsonl"
TINY = (
    "--preset smoke --vocab-size 300 --num-samples 8 --num-val-samples 4 --max-seq-length 32 "
    "--context-dim 16 --identity-mapping-threshold 1 --min-effective-rank 0.05 --accelerator cpu "
    f"--corpus {CHAT}"
).split()

Told = Callable[..., str]


@pytest.fixture
def told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Told:
    """What train.py, run in an empty folder, writes to standard error, having ended with a code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "listen_for_signals", lambda: None)

    def run(*arguments: str, expect: int = 2) -> str:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            command_line.run(train.main)
        error = capfd.readouterr().err
        assert ended.value.code == expect, error
        return error

    return run


@pytest.mark.parametrize("name", ["file", "file/run", "/proc/run"])
def test_a_run_folder_that_cannot_be_made_is_told_before_the_corpus_is_read(
    told: Told, name: str
) -> None:
    Path("file").write_text("precious")
    error = told("--run-dir", name, "--corpus", "none.txt")
    assert error.startswith(f"error: --run-dir {name} cannot be written to: ")
    assert len(error.splitlines()) == 1


def test_a_run_that_diverges_fails_and_exports_no_model(told: Told) -> None:
    diverging = "--phase2-learning-rate 1000 --gradient-clip 0 --weight-decay 3".split()
    error = told(*TINY, *diverging, "--run-dir", "run", expect=1)
    assert error == (
        "error: val_ppl was nan in epoch 1; try a lower learning rate. Logs are in run.\n"
    )
    assert not Path("run", "model").exists()
    assert not Path("run", "phase2", "best.ckpt").exists()


def test_a_folder_that_is_a_run_already_is_told_before_the_corpus_is_read(told: Told) -> None:
    Path("run").mkdir()
    Path("run", "config.json").write_text("{")
    error = told("--run-dir", "run", "--corpus", "none.txt")
    assert error.startswith("error: --run-dir run is not empty; give another, or --resume run ")
    error = told("--resume", "run")
    assert error.startswith("error: run/config.json is broken, or of another version: ")
    assert len(error.splitlines()) == 1


def test_commands_that_are_printed_can_be_given_to_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *TINY, "--run-dir", "my run"])
    monkeypatch.setattr(FullRun, "test", lambda *_: 1.0)
    monkeypatch.setattr(FullRun, "export", lambda *_: None)
    monkeypatch.setattr(FullRun, "train", lambda _: None)
    assert train.main() == 0
    assert "\n  tensorboard --logdir 'my run'\n" in capsys.readouterr().out

    def interrupted(_: FullRun) -> None:
        raise KeyboardInterrupt

    shutil.rmtree("my run")
    monkeypatch.setattr(FullRun, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.main()
    assert capsys.readouterr().out.endswith("python train.py --resume 'my run'\n")
    with pytest.raises(InputError, match=r"--run-dir my run is not empty; .* --resume 'my run' to"):
        train.main()


@pytest.mark.parametrize(
    "options",
    ["--max_epochs 2 --phase2_epochs 3", "--max-epochs 2 --phase2_epochs=3",
     "--phase2-epochs=3 --max_epochs=2"],
)  # fmt: skip
def test_options_that_mean_the_same_are_told_however_they_are_spelt(
    told: Told, options: str
) -> None:
    assert "mean the same" in told(*options.split(), "--corpus", "none.txt")


def test_an_option_is_peeked_at_however_it_is_spelt() -> None:
    for arguments in (["--a_b", "c_d"], ["--a_b=c_d"], ["--a-b", "c_d"], ["x", "--a-b=c_d"]):
        assert command_line.peek(arguments, "--a-b") == "c_d"
    assert command_line.peek(["--a_bc", "d"], "--a-b") is None
