"""The benchmark of `dist_reg_weight` on a tiny corpus: every line is there."""

from pathlib import Path

import benchmarks.dist_reg_weight
from config import Config
from tests.commands import CHAT, TINY, Call


def test_every_weight_has_its_line_and_the_picture_is_drawn(
    tmp_path: Path, tiny_config: Config, call: Call
) -> None:
    ran = call(
        benchmarks.dist_reg_weight.main, *TINY, "--corpus", str(CHAT), "--cache-dir",
        tiny_config.cache_dir, "--phase1-max-epochs", "2", "--phase2-epochs", "2",
        "--weights", "0.1", "0.9", "--seeds", "0", "1", "--plot", "w.png",
    )  # fmt: skip
    lines = ran.stdout.splitlines()
    assert [line.split()[0] for line in lines[-4:]] == ["0.1", "0.9", "untrained", "standard"]
    assert "ratio" in lines[-1]
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")
