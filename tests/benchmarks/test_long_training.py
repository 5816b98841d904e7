"""The benchmark of long trainings in sizes that mean nothing: both phases are trained and told."""

import re
import sys

import pytest

import benchmarks.long_training
from config import Config, InputError


def test_both_phases_tell_their_contexts_and_figures(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        f"--corpus {tiny_config.corpus} --cache-dir {tiny_config.cache_dir} --max-seq-length 128 "
        "--num-samples 32 --num-val-samples 4 --context-dim 256 --embed-dim 8 --head-embed-dim 8 "
        "--head-hidden-dim 16 --context-storage disk"
    )
    monkeypatch.setattr(sys, "argv", ["long_training.py", *options.split()])
    benchmarks.long_training.main()
    told = capsys.readouterr().out
    found = re.findall(r"^(Phase \d): (\d) epochs in .* contexts (\d+) MiB on (\w+)", told, re.M)
    # In bfloat16, two bytes an entry.
    assert found == [("Phase 1", "2", "2", "disk"), ("Phase 2", "1", "2", "disk")]
    assert "  val_ppl " in told


def test_what_is_out_of_range_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["long_training.py", "--batch-size", "0"])
    with pytest.raises(InputError, match="--batch-size is 0; it must be 1 or more"):
        benchmarks.long_training.main()
