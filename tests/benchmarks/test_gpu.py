"""The benchmarks of solver and GPU in sizes that mean nothing: every line is there, and is right."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import benchmarks.solver
from benchmarks import gpu
from config import InputError
from tests.commands import CHAT, ROOT, Call, run

BLOCKED = "import sys; sys.modules['optuna'] = sys.modules['optuna_integration'] = None; "


def text(folder: Path) -> list[str]:
    return ["--corpus", str(CHAT), "--vocab-size", "300", "--cache-dir", str(folder)]


def tables(output: str, start: str) -> list[list[str]]:
    """Words of the lines that begin with `start`."""
    return [line.split() for line in output.splitlines() if line.strip().startswith(start)]


def test_the_gpu_benchmark_runs_on_a_cpu(tmp_path: Path, call: Call) -> None:
    output = call(gpu.main, "--device", "cpu", "--small", *text(tmp_path)).stdout
    checked = tables(output, "residual  ") + tables(output, "gated  ")
    checked = [words for words in checked if words[2] in ("fp32", "bf16")]
    assert len({tuple(words[:4]) for words in checked}) == 2 * 2 * 2 * 3 + 2 * 2
    assert all(words[-1] == "ok" for words in checked)
    assert all(0 < float(words[4]) < float(words[5]) for words in checked)
    for heading in (
        "gated memory, C = 16, E = 8, 1 layer",
        "gated memory, C = 16, E = 8, 6 layers",
    ):
        assert heading in output
    solved = [words for words in tables(output, "1 ") if len(words) >= 11]
    assert [words[1] for words in solved] == ["64", "128"] * 2
    memory = output.partition("solving: ")[2].partition("training")[0].splitlines()[1:]
    assert [line.split()[2] for line in memory if line] == [
        "scan", "sweeps", "quasi_newton", "blocks", "auto"
    ] * 2  # fmt: skip
    training, _, phase2 = output.partition("\ntraining")[2].partition("\nphase2")
    steps = [tuple(words[1:4]) for words in tables(training, "16 ")]
    assert steps == [("6", tf32, compiled) for compiled in ("no", "yes") for tf32 in ("no", "yes")]
    steps = [tuple(words[1:3]) for words in tables(phase2, "16 ")]
    assert steps == [
        (contexts, compiled) for compiled in ("no", "yes") for contexts in ("frozen", "trained")
    ]


def test_an_error_above_its_limit_ends_the_command_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """A limit that nothing can keep stands for a device that computes wrongly."""
    monkeypatch.setitem(gpu.LIMITS, "bf16", 1e-5)
    options = ["--device", "cpu", "--small", "--parts", "correctness", *text(tmp_path)]
    ran = call(gpu.main, *options, expect=1)
    assert ran.stdout.count("FAILED") == 14
    assert ran.stderr.strip() == "14 of the correctness lines FAILED"


def test_a_device_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    ran = run(tmp_path, "benchmarks/gpu.py", "--device", "abacus", expect=2)
    assert ran.stdout == ""
    assert len(ran.stderr.splitlines()) == 1
    assert "--device is 'abacus'" in ran.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has one")
def test_a_device_that_the_build_of_torch_lacks_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cuda"])
    with pytest.raises(InputError, match="--device is 'cuda'") as told:
        gpu.main()
    assert "\n" not in str(told.value)
    assert capfd.readouterr() == ("", "")


def test_neither_optuna_nor_the_default_corpus_is_needed(tmp_path: Path) -> None:
    """Tokens that were made elsewhere are enough, where the corpus is not installed."""
    code = BLOCKED + (
        f"sys.path.insert(0, {str(ROOT)!r}); "
        "import importlib.metadata as m; version = m.version; "
        "from pathlib import Path; from benchmarks.gpu import load_text; import benchmarks.solver\n"
        "def missing(name):\n"
        "    if name == 'chitchat-dataset': raise m.PackageNotFoundError(name)\n"
        "    return version(name)\n"
        "m.version = missing\n"
        "made, found = (load_text(corpus, 300, Path('.')) for corpus in (sys.argv[1], 'chitchat'))\n"
        "print(made.train.equal(found.train), len(found.counts))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(CHAT)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.returncode, ran.stdout) == (0, "True 300\n"), ran.stderr


def test_the_solver_benchmark_has_a_line_for_every_case(tmp_path: Path, call: Call) -> None:
    options = "--context-dim 16 --embed-dim 8 --rows 1 2 --tokens 64 128 --repetitions 2".split()
    options += "--epochs 2 --val-samples 2".split()
    output = call(benchmarks.solver.main, *options, *text(tmp_path)).stdout
    applications = output.partition("contexts  predicted")[2].partition("rows   tokens")[0]
    assert [line.split()[0] for line in applications.splitlines()[1:]] == [
        "1",
        "16",
        "256",
        "4,096",
    ]
    lines = [line.split() for line in output.partition("rows   tokens")[2].splitlines()[1:]]
    assert [tuple(words[:2]) for words in lines] == [
        ("1", "64"), ("1", "128"), ("2", "64"), ("2", "128")
    ]  # fmt: skip
    for words in lines:
        assert float(words[8]) < 1e-8, "what converged is within the tolerance of the scan"
