"""The benchmark of cross-entropy measures two ways to the same numbers, and their memory."""

import sys

import pytest

import benchmarks.linear_cross_entropy


def test_parts_come_to_the_same_with_less_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--vocab-size 8000 --dims 2 --num-tokens 8000 --repetitions 1"
    monkeypatch.setattr(sys, "argv", ["linear_cross_entropy.py", *options.split()])
    benchmarks.linear_cross_entropy.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[2] for line in lines] == ["full", "parts"]
    full, parts = ([float(figure) for figure in line[3:]] for line in lines)
    assert parts[2:] == pytest.approx(full[2:], rel=1e-4)
    # All logits take 244 MiB, their logarithms and gradients as much each; a part's take 128.
    assert full[0] > 480
    assert parts[0] < 240
