"""Every benchmark can be started by its path, from whatever folder."""

import ast
import re
from pathlib import Path

import pytest

from tests.commands import ROOT

SCRIPTS = [
    file for file in sorted((ROOT / "benchmarks").glob("*.py")) if "__main__" in file.read_text()
]
OURS = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
FINDS_OURS = "sys.path.insert(0, str(Path(__file__).resolve().parent.parent))"


def imported(statement: ast.stmt) -> set[str]:
    """Top-level names of what a statement imports."""
    if isinstance(statement, ast.Import):
        return {alias.name.split(".")[0] for alias in statement.names}
    return (
        {(statement.module or "").split(".")[0]} if isinstance(statement, ast.ImportFrom) else set()
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_it_finds_what_it_imports_of_ours_and_calls_its_main(script: Path) -> None:
    statements = ast.parse(script.read_text(encoding="utf-8")).body
    written = [ast.unparse(statement) for statement in statements]
    before = statements[: written.index(FINDS_OURS)]
    assert set().union(*map(imported, before)) & OURS == set()
    assert written[-1].startswith("if __name__ == '__main__':")
    assert re.search(r"\bmain\(\)|\brun\(main\)", written[-1])
