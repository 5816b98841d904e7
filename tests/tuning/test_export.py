"""`config_optimized.py`: written whole or not at all, and read back as it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config import PRESETS, Config, InputError
from tuning.export import check_writable, load_config, write_config

ROOT = Path(__file__).parents[2]


def test_round_trip_at_full_precision(tmp_path: Path) -> None:
    path = tmp_path / "config_optimized.py"
    config = Config(context_dim=64, num_val_samples=7, freeze_context=False, corpus="my 'text'.txt")
    write_config(path, config, {"dist_reg_weight": 0.1 + 0.2}, "val_ppl 1.5: trial 3")
    loaded = load_config(str(path))
    assert loaded.dist_reg_weight == 0.1 + 0.2
    assert loaded == Config(
        context_dim=64,
        num_val_samples=7,
        freeze_context=False,
        corpus="my 'text'.txt",
        dist_reg_weight=0.1 + 0.2,
    )
    assert "val_ppl 1.5: trial 3" in path.read_text()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_read_back_as_it_was(tmp_path: Path, preset: str) -> None:
    """`full` has no number of samples; of what has a number or none, none is written as such."""
    path = tmp_path / "config_optimized.py"
    for given in (PRESETS[preset](), Config(num_samples=3, phase1_measure_every=2)):
        write_config(path, given, {}, "why")
        assert load_config(str(path)) == given
        assert "NoneType" not in path.read_text()


def test_import_as_a_user_writes_it(tmp_path: Path) -> None:
    write_config(tmp_path / "config_optimized.py", Config(), {"dist_reg_weight": 0.25}, "why")
    statement = (
        "from config_optimized import OptimizedConfig; print(OptimizedConfig().dist_reg_weight)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", statement],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "0.25"


def test_an_existing_file_survives_a_write_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config_optimized.py"
    path.write_text("precious")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_config(path, Config(), {"dist_reg_weight": 0.5}, "why")
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["missing/best.py", "best.txt", "."])
def test_an_output_that_cannot_be_written_is_refused_at_the_start(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match="--output"):
        check_writable(tmp_path / name)


def test_modules_without_the_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_config(str(tmp_path / "none.py"))
    (tmp_path / "other.py").write_text("x = 1\n")
    with pytest.raises(InputError, match="no class OptimizedConfig"):
        load_config(str(tmp_path / "other.py"))
