"""The benchmark of a study on a tiny corpus: every line is there, and trainings repeat themselves."""

from pathlib import Path

import benchmarks.study
from config import Config
from tests.commands import CHAT, TINY, Call


def test_a_seed_has_its_line_and_the_picture_is_drawn(
    tmp_path: Path, tiny_config: Config, call: Call
) -> None:
    ran = call(
        benchmarks.study.main, *TINY, "--corpus", str(CHAT), "--cache-dir", tiny_config.cache_dir,
        "--phase1-max-epochs", "2", "--phase2-epochs", "2", "--seeds", "3", "--num-trials", "3",
        "--num-points", "2", "--plot", "s.png",
    )  # fmt: skip
    lines = ran.stdout.splitlines()
    assert lines[3].split()[0] == "3"
    assert lines[-1] == "largest difference of a training and its repetition: 0.0e+00"
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
