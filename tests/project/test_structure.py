"""Rules of the house that no type checker holds."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("config", "models", "datamodules", "lightning_modules", "callbacks", "tuning")
FILES = [file for room in ROOMS[1:] for file in sorted((ROOT / room).rglob("*.py"))]


def imported(file: Path) -> set[str]:
    """Top-level names of everything that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_one_way(file: Path) -> None:
    room = file.relative_to(ROOT).parts[0]
    later = {
        *ROOMS[ROOMS.index(room) + 1 :],
        "optimize",
        "train",
        "generate",
        "command_line",
        "tests",
    }
    assert imported(file) & later == set()


def test_config_imports_nothing_of_ours() -> None:
    assert (
        imported(ROOT / "config.py") & {*ROOMS, "command_line", "optimize", "train", "generate"}
        == set()
    )


@pytest.mark.parametrize(
    "file", sorted((ROOT / "models").glob("*.py")), ids=lambda file: str(file.name)
)
def test_models_are_mathematics_only(file: Path) -> None:
    # weakref: what is recorded of a network goes when it goes.
    assert imported(file) <= {"torch", "typing", "models", "collections", "math", "weakref"}


def test_metric_names_are_written_once() -> None:
    names = ast.parse((ROOT / "lightning_modules" / "metric_names.py").read_text())
    values = {n.value for n in ast.walk(names) if isinstance(n, ast.Constant)} - {None}
    texts = {v for v in values if isinstance(v, str) and " " not in v}
    for file in FILES:
        if file.name == "metric_names.py":
            continue
        constants = {
            node.value
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert constants & texts == set(), file


def test_every_room_is_packaged() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for room in ROOMS[1:]:
        assert f'"{room}"' in text
