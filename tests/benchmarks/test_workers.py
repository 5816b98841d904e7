"""The benchmark of workers on a tiny corpus: its line is there."""

from pathlib import Path

from config import Config
from tests.commands import CHAT, TINY, run


def test_two_workers_have_their_line(tmp_path: Path, tiny_config: Config) -> None:
    ran = run(
        tmp_path, "benchmarks/workers.py", *TINY, "--corpus", str(CHAT), "--cache-dir",
        tiny_config.cache_dir, "--phase1-max-epochs", "2", "--phase2-epochs", "2",
        "--workers", "2", "--num-trials", "4",
    )  # fmt: skip
    workers, _, storage, trials, *_, overhead, _ = ran.stdout.splitlines()[1].split()
    assert (workers, storage, trials) == ("2", "sqlite", "4")
    assert 0 < float(overhead.rstrip("%")) < 100
