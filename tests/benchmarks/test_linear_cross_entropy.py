"""The benchmark of cross-entropy measures two ways to the same numbers, and their memory."""

import sys

import pytest

import benchmarks.linear_cross_entropy
from benchmarks.linear_cross_entropy import measure
from config import InputError

MIB = 2**20


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
    # All logits, their logarithms, and the gradients of the one and the other, three at a time.
    assert 3 * 244 < full[0] < 4 * 244
    # A part's take 128 MiB.
    assert 128 < parts[0] < 240


@pytest.mark.parametrize("way", ["full", "parts"])
def test_the_peak_holds_what_a_step_must_have(way: str) -> None:
    """However high the process's memory was before: a gradient as large as the weights is new."""
    torn_down = bytearray(500 * MIB)
    del torn_down
    weights = 3000 * 3000 * 4 / MIB
    # Less one: Linux counts pages in parts, some for each core.
    assert weights - 1 < measure(way, 3000, 3000, 100, 1, "cpu").peak_mib < 2 * weights


@pytest.mark.parametrize("options", ["--dims 0", "--repetitions 0", "--device abacus"])
def test_what_is_out_of_range_is_told(monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["linear_cross_entropy.py", *options.split()])
    with pytest.raises(InputError, match=f"{options.split()[0]} is .* it must be "):
        benchmarks.linear_cross_entropy.main()
