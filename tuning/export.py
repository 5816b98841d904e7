"""Writes `config_optimized.py`, and reads a configuration back from such a module."""

import dataclasses
import importlib.util
import os
import traceback
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config import Config, InputError
from datamodules.whole_files import write_bytes_whole
from tuning.folders import require_writable_folder

_ROOT = Path(__file__).parents[1]
_TEMPLATE = '''"""The best configuration of a study; written by optimize.py, made anew by the next one."""

from dataclasses import dataclass

from config import Config


@dataclass(frozen=True)
class OptimizedConfig(Config):
    {provenance!r}

{fields}
'''


def render(config: Config, tuned: Mapping[str, Any], provenance: str) -> str:
    """The module's text: tuned values at full precision, then what else differs from defaults."""
    lines = ["    # Tuned"]
    lines += [_field(name, value) for name, value in tuned.items()]
    default = Config()
    fixed = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(Config)
        if field.name not in tuned and getattr(config, field.name) != getattr(default, field.name)
    }
    if fixed:
        lines += ["    # Given to the study", *(_field(n, v) for n, v in fixed.items())]
    return _TEMPLATE.format(provenance=provenance, fields="\n".join(lines))


def write_config(path: Path, config: Config, tuned: Mapping[str, Any], provenance: str) -> None:
    """Writes the module whole or not at all: beside its place, then renamed."""
    text = render(config, tuned, provenance)
    write_bytes_whole(path, text.encode(), is_shared=True)


def check_writable(path: Path) -> None:
    """Finds out before the study, not after it, that its result cannot be written.

    Raises:
        InputError: the folder does not exist or takes no file, or the path is a folder.
    """
    if path.is_dir() or path.suffix != ".py" or not path.parent.is_dir():
        raise InputError(f"--output {path} must be a .py file in a folder that exists.")
    require_writable_folder("--output", path.parent)


def load_config(name: str) -> Config:
    """The `OptimizedConfig` of a module, by its name or its file's path.

    Where it is not in the current folder, it is looked for beside config.py, where optimize.py writes
    it unless told otherwise.

    Raises:
        InputError: there is no such file or no such class in it, or it cannot be used.
    """
    path = _path_of(name)
    if not path.is_file():
        raise InputError(f"--config {name!r}: {path} does not exist; optimize.py writes it.")
    try:
        optimized = getattr(_run(path), "OptimizedConfig", None)
        if not (isinstance(optimized, type) and issubclass(optimized, Config)):
            raise InputError("it has no class OptimizedConfig(Config).")
        _check_fields(optimized)
        return Config(**dataclasses.asdict(optimized()))
    # What a user wrote may raise anything.
    except Exception as error:
        raise InputError(f"--config {name!r}: {_reason(error, path)}") from error


def _path_of(name: str) -> Path:
    if not name.endswith(".py"):
        name = f"{name if os.sep in name else name.replace('.', '/')}.py"
    path, default = Path(name), _ROOT / name
    return default if default.is_file() and not path.is_file() else path


def _run(path: Path) -> types.ModuleType:
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _check_fields(optimized: type[Config]) -> None:
    known = {field.name for field in dataclasses.fields(Config)}
    unknown = [field.name for field in dataclasses.fields(optimized) if field.name not in known]
    if unknown:
        names = " and no ".join(unknown)
        raise InputError(f"it was written by another version: this one has no {names}.")


def _reason(error: Exception, path: Path) -> str:
    """What is wrong with a file, and in which line where that is known."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, SyntaxError):
        line, text = error.lineno, f"no Python: {error.msg}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((f.lineno for f in reversed(frames) if f.filename == str(path)), None)
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return f"line {line}: {text}." if line else f"{text}."


def _field(name: str, value: object) -> str:
    hint = typing.get_type_hints(Config)[name]
    is_optional = types.NoneType in typing.get_args(hint)
    annotation = str(hint) if is_optional else type(value).__name__
    return f"    {name}: {annotation} = {value!r}"
