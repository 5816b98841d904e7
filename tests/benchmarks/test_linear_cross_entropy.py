"""The benchmark of cross-entropy measures two ways to the same numbers, and their memory."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_parts_come_to_the_same_with_less_memory(tmp_path: Path) -> None:
    script = str(ROOT / "benchmarks" / "linear_cross_entropy.py")
    options = "--vocab-size 8000 --dims 8 --num-tokens 16000 --repetitions 1".split()
    ran = subprocess.run(
        [sys.executable, script, *options], capture_output=True, text=True, timeout=300, check=True
    )
    full, parts = (line.split() for line in ran.stdout.splitlines()[2:])
    assert (full[2], parts[2]) == ("full", "parts")
    assert full[5:] == parts[5:]
    # All logits take 488 MiB, and a part's 128.
    assert float(full[3]) > 900
    assert float(parts[3]) < 300
