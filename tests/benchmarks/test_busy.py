"""The benchmark of trials beside other work, on a tiny corpus."""

import sys
from pathlib import Path

import pytest

import benchmarks.busy
from benchmarks.busy import busy_processes, seconds_a_trial
from config import Config, InputError
from tests.commands import CHAT, TINY


def test_others_are_busy_inside_alone() -> None:
    with busy_processes(2) as processes:
        assert [process.poll() for process in processes] == [None, None]
    assert None not in [process.poll() for process in processes]


def test_every_way_has_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_config: Config
) -> None:
    study = f"{' '.join(TINY)} --corpus {CHAT} --cache-dir {tiny_config.cache_dir}"
    given = ["--busy", "0", "--spins", "7", "--num-trials", "2", f"--study={study}"]
    monkeypatch.setattr(sys, "argv", ["busy.py", *given])
    benchmarks.busy.main()
    head, spins, thread = capsys.readouterr().out.splitlines()
    assert head.split() == ["s", "a", "trial", "0", "busy"]
    assert spins.startswith("7 spins ")
    assert thread.startswith("one thread ")
    assert all(0 < float(line.split()[-1]) < 60 for line in (spins, thread))


def test_a_study_that_failed_is_shown(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"ended with 2:\n.*none\.txt"):
        seconds_a_trial(2, f"--corpus {tmp_path}/none.txt", {})


@pytest.mark.parametrize("options", ["--busy 1 -1", "--spins -1", "--num-trials 1"])
def test_what_is_out_of_range_is_told(monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["busy.py", *options.split()])
    with pytest.raises(InputError, match=f"{options.split()[0]} is .* it must be "):
        benchmarks.busy.main()
