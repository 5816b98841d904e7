"""The benchmark of generation in sizes that mean nothing: every line is there, and is right."""

import sys

import pytest

import benchmarks.generation


def test_every_model_has_a_line_for_every_position(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--positions 5 40 --tokens 3 --vocab-size 300"
    monkeypatch.setattr(sys, "argv", ["generation.py", *options.split()])
    benchmarks.generation.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[0] for line in lines] == ["ours"] * 2 + ["LSTM"] * 2 + ["GPT"] * 2
    weights = {line[0]: int(line[1].replace(",", "")) for line in lines}
    assert max(weights.values()) < 1.2 * min(weights.values())
    states = [float(line[3].replace(",", "")) for line in lines]
    assert states[0] == states[1]
    assert states[2] == states[3]
    assert states[5] == pytest.approx(8 * states[4])
    assert all(float(line[4]) > 0 for line in lines)
    assert [line[5] for line in lines[::2]] == ["1.00"] * 3
