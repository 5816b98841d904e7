"""A benchmark's command line: its own options beside a Config's, and errors in one line."""

import dataclasses
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import command_line
from benchmarks.options import parse, parse_alone, parse_config, run
from config import Config, InputError, require

ROOT = Path(__file__).resolve().parents[2]
# A warning would be lines beside the one that tells what is wrong.
pytestmark = pytest.mark.filterwarnings("error")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    path: Path
    """Where."""
    sizes: tuple[int, ...] = (1, 2)
    """How large."""

    def __post_init__(self) -> None:
        require(min(self.sizes, default=0) > 0, "sizes", self.sizes, "numbers from 1")


def given(monkeypatch: pytest.MonkeyPatch, arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments.split()])
    monkeypatch.setattr(command_line, "listen_for_signals", lambda: None)


def test_options_stand_beside_those_of_a_config_and_its_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    default = dataclasses.replace(Config(), batch_size=7, context_dim=8)
    given(monkeypatch, "--path here --context-dim 16 --sizes 3")
    changed = dataclasses.replace(default, context_dim=16)
    assert parse(Options, None, config=default) == (Options(Path("here"), (3,)), changed)
    given(monkeypatch, "--path here")
    assert parse(Options, None) == (Options(Path("here")), Config())
    assert parse_alone(Options, None) == Options(Path("here"))
    given(monkeypatch, "--context-dim 16")
    assert parse_config(None, default) == changed


def test_help_has_the_description_and_every_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given(monkeypatch, "--help")
    for parser in (parse, parse_alone):
        with pytest.raises(SystemExit, match="0"):
            parser(Options, "What this is.\n\n    python script.py")
        told = capsys.readouterr().out
        assert "What this is." in told
        assert "--sizes" in told
        assert "How large." in told
        assert ("--batch-size" in told) == (parser is parse)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--path here --batch-size 0", "--batch-size is 0; it must be 1 or more."),
        ("--path here --sizes 0", "--sizes is (0,); it must be numbers from 1."),
    ],
)
def test_what_is_out_of_range_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    message: str,
) -> None:
    given(monkeypatch, arguments)
    with pytest.raises(SystemExit) as ended:
        run(lambda: print(parse(Options, None)))
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")


def test_options_alone_are_told_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, "--path here --sizes 0")
    with pytest.raises(InputError, match="--sizes is"):
        parse_alone(Options, None)
    given(monkeypatch, "--batch-size 0")
    with pytest.raises(InputError, match="--batch-size is"):
        parse_config(None, Config())


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_what_a_main_returns_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, returned: int | None, code: int
) -> None:
    given(monkeypatch, "")
    with pytest.raises(SystemExit) as ended:
        run(lambda: returned)
    assert ended.value.code == code


def test_a_main_runs_where_only_torch_is_installed() -> None:
    missing = ("tyro", "optuna", "lightning")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing})); "
        "from benchmarks.options import run; run(lambda: 3)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (3, b"")
