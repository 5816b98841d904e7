"""Both command lines as a user runs them, in a process of their own where that makes a difference."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import optimize
import train
from tests.commands import CHAT, TINY, Call, command, run, started

SMOKE = ["--preset", "smoke", *TINY]
MAINS = {"optimize.py": optimize.main, "train.py": train.main}
SMALL = "--vocab-size 300 --max-seq-length 32".split()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return ["--cache-dir", str(tmp_path_factory.mktemp("cache")), "--corpus", str(CHAT)]


def test_study_then_training_with_its_result(tmp_path: Path, cache: list[str], call: Call) -> None:
    output = tmp_path / "config_optimized.py"
    study = ["--n-trials", "2", "--storage", "sqlite:///study.db", "--output", str(output)]
    first = run(tmp_path, "optimize.py", *study, *SMOKE, *cache)
    assert first.stderr == ""
    for expected in ("Trial 0 (1 of 2)", "Phase 1:", "Phase 2:", "2 complete, 0 pruned, 0 failed",
                     "Best trial:", "Best trials", "tensorboard --logdir"):  # fmt: skip
        assert expected in first.stdout
    runs = tmp_path / "runs" / "dist_reg_weight_optimization"
    assert sorted(path.name for path in runs.iterdir()) == ["trial_0000", "trial_0001"]

    continued = run(tmp_path, "optimize.py", *study, "--n-trials", "3", *SMOKE, *cache)
    assert "Trial 2 (3 of 3)" in continued.stdout
    assert "Trial 1 (" not in continued.stdout
    assert "3 complete" in continued.stdout

    trained = run(
        tmp_path, "train.py", "--config", "config_optimized", "--run-dir", "run", *cache[:2]
    )
    assert "Test perplexity:" in trained.stdout
    assert (tmp_path / "run" / "phase2" / "best.ckpt").is_file()
    model = {path.name for path in (tmp_path / "run" / "model").iterdir()}
    assert model == {"model.safetensors", "config.json", "tokenizer.json"}
    other = ["--resume", "run", "--patience", "2"]
    refused = call(train.main, *other, expect=2)
    assert "give no other option" in refused.stderr


def test_one_batch_through_both_phases(tmp_path: Path, cache: list[str], call: Call) -> None:
    ran = call(train.main, "--test", *SMOKE, *cache)
    lines = ran.stdout.splitlines()
    assert len(lines) == 8
    assert all(line.startswith("ok ") for line in lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("optimize.py", ["--context-dim", "0"], "--context-dim is 0; it must be 1 or more"),
        ("optimize.py", ["--accelerator", "gpu"], "this machine shows none"),
        ("optimize.py", ["--n-trials", "0"], "--n-trials is 0"),
        ("optimize.py", ["--corpus", "none.jsonl"], "--corpus 'none.jsonl' does not exist"),
        ("optimize.py", ["--corpus", "empty.txt"], "--corpus 'empty.txt' holds no text"),
        ("optimize.py", ["--tokenizer", "no.json"], "--tokenizer 'no.json' does not exist"),
        ("optimize.py", ["--output", "no/x.py"], "--output no/x.py must be"),
        ("optimize.py", ["--storage", "study.db", *SMALL], "--storage is no database URL"),
        ("optimize.py", ["--study-name", "a/b"], "--study-name is 'a/b'"),
        ("optimize.py", ["--tune", "dist_reg_wait"], "did you mean dist_reg_weight?"),
        ("optimize.py", ["--range", "ema_momentum=0:0.5"], "of a parameter that is not tuned"),
        ("optimize.py", ["--sampler", "cmaes"], "--sampler cmaes needs two parameters"),
        ("optimize.py", ["--workers", "none"], "--workers is 'none'"),
        ("optimize.py", ["--trial-timeout", "0"], "--trial-timeout is 0"),
        ("optimize.py", ["--timeout", "0.01", *SMALL], "was over before the corpus was read"),
        (
            "optimize.py",
            ["--num-val-samples", "1", *SMALL],
            "--min-effective-rank 0.5 cannot be met",
        ),
        ("train.py", ["--config", "nothing"], "--config 'nothing': nothing.py does not exist"),
        ("train.py", ["--resume", "nowhere"], "--resume nowhere has no config.json"),
        ("train.py", ["--config", "x", "--preset", "smoke"], "exclude each other"),
        ("train.py", ["--max-epochs", "2", "--phase2-epochs", "3"], "mean the same"),
        ("train.py", ["--devices", "3", *SMALL], "--batch-size is 4; it must be a multiple of"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, cache: list[str], script: str, arguments: list[str], message: str, call: Call
) -> None:
    (tmp_path / "empty.txt").touch()
    kept = tmp_path / "config_optimized.py"
    kept.write_text("precious")
    if "gpu" in arguments and torch.accelerator.is_available():
        pytest.skip("there is a GPU")
    default = [] if "--corpus" in arguments else cache[2:]
    told = call(MAINS[script], *arguments, *cache[:2], *default, expect=2).stderr
    assert message in told
    assert len(told.splitlines()) == 1
    assert kept.read_text() == "precious"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("script", MAINS)
def test_a_process_given_bad_input_prints_one_line_and_ends_with_2(
    tmp_path: Path, script: str
) -> None:
    """Nothing that is imported on the way, or at the end of a process, adds a line or another code."""
    ran = run(tmp_path, script, "--corpus", "none.jsonl", expect=2)
    assert ran.stderr.startswith("error: --corpus 'none.jsonl' does not exist. ")
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_two_parameters_are_tuned_and_the_winner_is_confirmed(
    tmp_path: Path, cache: list[str], call: Call
) -> None:
    output = tmp_path / "config_optimized.py"
    searched = "--tune dist_reg_weight,phase1_learning_rate --sampler random --confirm 2"
    arguments = [*SMOKE, *cache, "--n-trials", "3", *searched.split(), "--output", str(output)]
    ran = call(optimize.main, *arguments)
    assert "Confirmation 5 (6 of 6): trial " in ran.stdout
    assert "Under fresh seeds" in ran.stdout
    assert " wins: " in ran.stdout
    assert "over 3 fresh seeds: trial" in output.read_text()
    assert "phase1_learning_rate" in output.read_text()


def test_cleaning_ends_the_trial_of_a_process_that_is_gone(tmp_path: Path, call: Call) -> None:
    import optuna

    url = f"sqlite:///{tmp_path / 'study.db'}"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    trial = optuna.create_study(storage=url, study_name="haunted").ask()
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr("worker", f"{socket.gethostname()}:{gone.pid}")
    clean = ["clean", "--study-name", "haunted"]
    ran = call(optimize.main, *clean, "--storage", url)
    assert "Trial 0," in ran.stdout
    assert "ended, its process is gone" in ran.stdout
    assert "1 ended, 0 left running." in ran.stdout
    assert "0 ended, 0 left running." in call(optimize.main, *clean, "--storage", url).stdout
    refused = call(optimize.main, *clean, expect=2)
    assert "--storage is missing" in refused.stderr


def test_a_study_in_which_nothing_completed_says_why(
    tmp_path: Path, cache: list[str], call: Call
) -> None:
    output = tmp_path / "config_optimized.py"
    output.write_text("precious")
    arguments = [*SMOKE, *cache, "--n-trials", "2", "--min-effective-rank", "0.9"]
    arguments += ["--memory", "residual"]
    ran = call(optimize.main, *arguments, "--output", str(output), expect=1)
    assert "No trial completed (2 pruned: effective rank)" in ran.stdout
    assert output.read_text() == "precious"


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_no_running_trial_and_a_report(
    tmp_path: Path, cache: list[str], sent: signal.Signals, code: int
) -> None:
    import optuna

    url = f"sqlite:///{tmp_path / 'study.db'}"
    endless = ["--n-trials", "1000", "--timeout", "100"]  # where the signal is lost
    endless += ["--storage", url, "--output", str(tmp_path / "best.py")]
    search = command("optimize.py", *SMOKE, *cache, *endless, "--phase2-epochs", "20")
    unbuffered = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with started(search, tmp_path, stderr=subprocess.STDOUT, environment=unbuffered) as process:
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            if line.startswith("Trial 1 "):
                break
        time.sleep(0.2)  # into the trial, wherever that is
        process.send_signal(sent)
        seen += process.stdout.read()
        assert process.wait() == code, seen
    assert "Study ended after" in seen
    assert "Best trial: 0" in seen
    assert "Traceback" not in seen
    trials = optuna.load_study(study_name="dist_reg_weight_optimization", storage=url).trials
    assert {trial.state.name for trial in trials[:1]} == {"COMPLETE"}
    # Failed, and queued again.
    assert [trial.state.name for trial in trials[-2:]] == ["FAIL", "WAITING"]
    assert trials[-1].params == trials[-2].params
    assert (tmp_path / "best.py").is_file()


CHECKPOINTS = ["--checkpoint-minutes", "0.0001"]


def kill_in(folder: Path, phase: str, *arguments: str) -> None:
    """Starts training and kills all of its processes, without a chance to clean up, amid a phase."""
    checkpoint = folder / "killed" / phase / "last.ckpt"
    training = command("train.py", *arguments)
    with started(training, folder, stdout=subprocess.DEVNULL, stderr=None) as process:
        while not checkpoint.is_file():
            assert process.poll() is None  # as it is not once its time is over
            time.sleep(0.01)
        time.sleep(0.1)  # into the phase, wherever that is
    # Killed as the block ended.
    assert not (folder / "killed" / phase / "done").exists()


def figures(folder: Path, phase: str) -> dict[str, list[float]]:
    """The columns of a phase's metrics, each in the order of its steps."""
    columns: dict[str, list[float]] = {}
    with (folder / phase / "metrics.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            for name, text in row.items():
                if text:
                    columns.setdefault(name, []).append(float(text))
    return columns


def test_training_goes_on_where_it_was_killed(tmp_path: Path, cache: list[str]) -> None:
    """Killed in either phase and continued: the run of one that was left alone, digit for digit."""
    arguments = [*SMOKE, *cache, "--num-samples", "64", "--batch-size", "1", "--max-epochs", "6",
                 "--phase1-min-converged-ratio", "1", "--phase1-max-epochs", "6",
                 "--phase2-optimizer", "muon"]  # fmt: skip
    whole = run(tmp_path, "train.py", *arguments, "--run-dir", "whole")
    kill_in(tmp_path, "phase1", *arguments, "--run-dir", "killed", *CHECKPOINTS)
    kill_in(tmp_path, "phase2", "--resume", "killed")
    continued = run(tmp_path, "train.py", "--resume", "killed", *cache[:0])
    perplexities = [
        next(line for line in text.splitlines() if line.startswith("Test perplexity"))
        for text in (whole.stdout, continued.stdout)
    ]
    assert perplexities[0] == perplexities[1]
    assert "Phase 1" not in continued.stdout
    assert "Phase 2: goes on " in continued.stdout
    for phase in ("phase1", "phase2"):
        expected = (tmp_path / "whole" / phase / "metrics.csv").read_bytes()
        assert (tmp_path / "killed" / phase / "metrics.csv").read_bytes() == expected


def test_two_processes_train_as_one_does(tmp_path: Path, cache: list[str]) -> None:
    """The two were killed in Phase 1: contexts and averages of both are in the checkpoint.

    Contraction is measured between rows of one process: with it, losses are near, not equal.
    """
    arguments = [*SMOKE, *cache, "--num-samples", "32", "--num-val-samples", "5", "--dropout", "0",
                 "--phase1-min-converged-ratio", "1", "--phase1-max-epochs", "8",
                 "--diversity-loss", "covariance", "--contraction-weight", "0"]  # fmt: skip
    one = run(tmp_path, "train.py", *arguments, "--run-dir", "one")
    devices = ["--devices", "2", "--strategy", "ddp"]
    kill_in(tmp_path, "phase1", *arguments, "--run-dir", "killed", *devices, *CHECKPOINTS)
    two = run(tmp_path, "train.py", "--resume", "killed")
    assert two.stderr == ""
    assert two.stdout.count("Test perplexity") == one.stdout.count("Test perplexity") == 1
    for phase in ("phase1", "phase2"):
        expected, seen = figures(tmp_path / "one", phase), figures(tmp_path / "killed", phase)
        # Swapped with a neighbouring row's token, which is another where rows are shared.
        for name in expected.keys() - {"phase1/token_sensitivity"}:
            assert seen[name] == pytest.approx(expected[name], rel=2e-5, abs=1e-6), name
