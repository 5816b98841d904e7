"""The benchmark of workers on a tiny corpus, and each worker's share of the machine."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

import benchmarks.workers
from benchmarks.workers import Measured
from config import Config, InputError
from tests.commands import CHAT, TINY, run


@pytest.fixture(autouse=True)
def _as_talkative_as_before() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    yield
    optuna.logging.set_verbosity(before)


def tell_gpu(*arguments: Any) -> None:
    """A worker that does as many trials as its GPU is called; spawned, so found by its name."""
    results = arguments[-1]
    num_trials = int(os.environ["CUDA_VISIBLE_DEVICES"])
    results.put(Measured(wall=1.0, in_trials=2.0, useful=1.0, num_trials=num_trials))


def fail(*_: Any) -> None:
    sys.exit(3)


def given(monkeypatch: pytest.MonkeyPatch, config: Config, options: str) -> None:
    text = f"--corpus {config.corpus} --vocab-size 300 --num-samples 8 --num-val-samples 4"
    sizes = f"--max-seq-length 32 --cache-dir {config.cache_dir}"
    monkeypatch.setattr(sys, "argv", ["workers.py", *f"{options} {text} {sizes}".split()])


def test_a_worker_has_its_gpu_in_the_second_measurement_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_config: Config
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    given(monkeypatch, tiny_config, "--workers 1 2")
    monkeypatch.setattr(benchmarks.workers, "work", tell_gpu)
    before = dict(os.environ)
    benchmarks.workers.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [(line[0], line[3]) for line in lines] == [("1", "3"), ("2", "8")]
    assert os.environ == before


def test_a_worker_that_fails_ends_the_benchmark(
    monkeypatch: pytest.MonkeyPatch, tiny_config: Config
) -> None:
    given(monkeypatch, tiny_config, "--workers 1")
    monkeypatch.setattr(benchmarks.workers, "work", fail)
    with pytest.raises(SystemExit, match="A worker failed"):
        benchmarks.workers.main()


@pytest.mark.parametrize("options", ["--workers 1 0", "--num-trials 0", "--batch-size 0"])
def test_what_is_out_of_range_is_told(monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["workers.py", *options.split()])
    with pytest.raises(InputError, match=f"{options.split()[0]} is .* it must be "):
        benchmarks.workers.main()


def test_two_workers_have_their_line(tmp_path: Path, tiny_config: Config) -> None:
    ran = run(
        tmp_path, "benchmarks/workers.py", *TINY, "--corpus", str(CHAT), "--cache-dir",
        tiny_config.cache_dir, "--phase1-max-epochs", "2", "--phase2-epochs", "2",
        "--workers", "2", "--num-trials", "4",
    )  # fmt: skip
    workers, _, storage, trials, *_, overhead, _ = ran.stdout.splitlines()[1].split()
    assert (workers, storage, trials) == ("2", "sqlite", "4")
    assert 0 < float(overhead.rstrip("%")) < 100


def test_a_corpus_that_is_missing_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["workers.py", "--corpus", "none.jsonl"])
    with pytest.raises(InputError, match=r"'none\.jsonl' does not exist"):
        benchmarks.workers.main()
