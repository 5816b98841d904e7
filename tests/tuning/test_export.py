"""`config_optimized.py`: written whole or not at all, and read back as it was."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from config import PRESETS, Config, InputError
from tuning import export
from tuning.export import check_writable, load_config, render, write_config

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


@pytest.mark.parametrize(
    "name", ['"""', "'''", "a\\", "\\N{}", "a\nb", "{fields}", "naïve ±"], ids=ascii
)
def test_a_study_of_any_name_is_read_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config_optimized.py"
    for provenance in (f"trial 3 of study {name!r}", name):
        write_config(path, Config(), {"dist_reg_weight": 0.25}, provenance)
        assert load_config(str(path)).dist_reg_weight == 0.25
        written = ast.parse(path.read_text(encoding="utf-8")).body[-1]
        assert isinstance(written, ast.ClassDef)
        assert ast.get_docstring(written, clean=False) == provenance


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


WRITTEN = render(Config(), {"dist_reg_weight": 0.5}, "why")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = (\n", "line 2: no Python: '(' was never closed."),
        ("x = '\0'", "no Python: source code string cannot contain null bytes."),
        ("\nimport no_such_module", "line 2: ModuleNotFoundError: No module named "),
        ("from config import Confik", "line 1: ImportError: cannot import name 'Confik'"),
        ("def f():\n    return x\n\nf()", "line 2: NameError: name 'x' is not defined."),
        (
            WRITTEN.replace("dist_reg_weight", "dist_weight"),
            "it was written by another version: this one has no dist_weight.",
        ),
        (WRITTEN.replace("0.5", "1.5"), "--dist-reg-weight is 1.5; it must be between 0 and 1."),
        (WRITTEN.replace("0.5", "'half'"), "TypeError: '<=' not supported between "),
    ],
)
def test_a_module_that_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "config_old.py"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        load_config(str(path))
    told = str(refused.value)
    assert told.startswith(f"--config {str(path)!r}: {message}")
    assert "\n" not in told


@pytest.mark.parametrize(
    "name", ["runs/best.py", "runs/best", "./runs/best", "runs.best", "../here/runs/best"]
)
def test_a_module_is_found_by_name_and_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here" / "runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    Path("runs", "best.py").write_text(WRITTEN)
    assert load_config(name).dist_reg_weight == 0.5


def test_a_module_is_looked_for_beside_the_program_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where optimize.py writes it unless told otherwise; the current folder comes first."""
    (tmp_path / "program").mkdir()
    monkeypatch.setattr(export, "_ROOT", tmp_path / "program")
    monkeypatch.chdir(tmp_path)
    Path("program", "config_optimized.py").write_text(WRITTEN)
    for name in ("config_optimized", "config_optimized.py"):
        assert load_config(name).dist_reg_weight == 0.5
    Path("config_optimized.py").write_text(WRITTEN.replace("0.5", "0.25"))
    assert load_config("config_optimized").dist_reg_weight == 0.25
