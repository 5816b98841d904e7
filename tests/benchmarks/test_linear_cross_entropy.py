"""The benchmark of cross-entropy measures two ways to the same numbers, and their memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_parts_come_to_the_same_with_less_memory() -> None:
    """In a process of its own: what other tests left to the allocator is not measured."""
    options = "--vocab-size 8000 --dims 2 --num-tokens 8000 --repetitions 1"
    ran = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "linear_cross_entropy.py"), *options.split()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    lines = [line.split() for line in ran.stdout.splitlines()[2:]]
    assert [line[2] for line in lines] == ["full", "parts"]
    full, parts = ([float(figure) for figure in line[3:]] for line in lines)
    assert parts[2:] == pytest.approx(full[2:], rel=1e-4)
    # All logits take 244 MiB, their logarithms and gradients as much each; a part's take 128.
    assert full[0] > 480
    assert parts[0] < 240
