"""The table of weights and its controls, in sizes that mean nothing."""

import sys
from pathlib import Path

import pytest

from benchmarks import dist_reg_weight
from datamodules.token_datamodule import TokenDataModule
from tests.commands import CHAT

SIZES = """--vocab-size 300 --num-samples 8 --num-val-samples 4 --max-seq-length 32 --context-dim 16
    --embed-dim 16 --head-embed-dim 8 --head-hidden-dim 8 --phase1-max-epochs 2 --phase2-epochs 2
    --phase2-learning-rate 0.1 --context-scale 3 --accelerator cpu""".split()


def test_weights_and_controls_have_their_lines_and_their_plot(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_data: TokenDataModule,
    tmp_path: Path,
) -> None:
    plot = tmp_path / "weights.png"
    data = ["--corpus", str(CHAT), "--cache-dir", tiny_data.config.cache_dir]
    measured = ["--weights", "0.1", "0.9", "--seeds", "0", "1", "--plot", str(plot)]
    monkeypatch.setattr(sys, "argv", ["script", *SIZES, *data, *measured])
    dist_reg_weight.main()
    *_, low, high, untrained, read, spread = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in (low, high, untrained, read)]
    assert [row[0] for row in rows] == ["0.1", "0.9", "untrained", "read"]
    assert [row[3:7] == ["nan"] * 4 for row in rows] == [False, False, True, True]
    assert len({row[1] for row in rows}) == 4, "trainings of their own"
    assert spread.startswith("standard deviation over weights")
    assert plot.read_bytes().startswith(b"\x89PNG")
