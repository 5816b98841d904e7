"""The table of ideas for contexts, in sizes that mean nothing."""

import sys
from pathlib import Path

import pytest

from benchmarks import context_ideas
from config import InputError
from datamodules.token_datamodule import TokenDataModule

CHAT = Path(__file__).parents[1] / "datamodules" / "data" / "ultrachat_sample.jsonl"
SIZES = """--vocab-size 300 --num-samples 8 --num-val-samples 4 --max-seq-length 32 --embed-dim 6
    --epochs 2 --recall-epochs 1""".split()


def arguments(monkeypatch: pytest.MonkeyPatch, *given: str) -> None:
    monkeypatch.setattr(sys, "argv", ["context_ideas.py", *SIZES, *given])


def test_every_idea_has_its_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_data: TokenDataModule,
) -> None:
    cache_dir = tiny_data.config.cache_dir
    arguments(monkeypatch, "--corpus", str(CHAT), "--cache-dir", cache_dir)
    assert context_ideas.main() == 0
    _, sizes, _, *lines = capsys.readouterr().out.splitlines()
    assert sizes == "256 training and 128 validation tokens"
    rows = [line.replace(",", "").split() for line in lines]
    assert [row[0] for row in rows] == list(context_ideas.IDEAS)
    for _, best, *epochs, _, _ in rows:
        assert 1 < float(best) < 400
        assert min(map(float, epochs)) == pytest.approx(float(best), abs=0.06)
        assert len(epochs) == 2


def test_an_idea_that_does_not_exist_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments(monkeypatch, "--ideas", "zeros", "ones")
    with pytest.raises(InputError, match="--ideas has ones; there are zeros, "):
        context_ideas.main()
