"""The peak memory of Phase 1 has in it what cannot be missed."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

from config import Config

ROOT = Path(__file__).resolve().parents[2]
MEASURE = """import json, sys
from benchmarks.phase1_memory import measure
from config import Config
print(json.dumps(measure(Config(**json.loads(sys.argv[1])))._asdict()))
"""


def measured(config: Config) -> dict[str, int]:
    """In a process of its own, whose allocator holds nothing back from other tests."""
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(dataclasses.asdict(config))],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found: dict[str, int] = json.loads(ran.stdout)
    return found


def test_the_peak_holds_contexts_weights_and_what_trains_them(tiny_config: Config) -> None:
    config = dataclasses.replace(tiny_config, context_dim=768, num_samples=64, phase1_max_epochs=1)
    found = measured(config)
    assert found["contexts"] == 64 * 32 * 768 * 4
    assert found["learning"] > found["weights"] > 768 * 776 * 4
    assert found["peak"] > found["contexts"] + found["learning"]
