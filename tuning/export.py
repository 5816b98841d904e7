"""Writes `config_optimized.py`, and reads a configuration back from such a module."""

import dataclasses
import importlib.util
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config import Config, InputError
from datamodules.whole_files import write_bytes_whole
from tuning.folders import require_writable_folder

_TEMPLATE = '''"""The best configuration of a study; written by optimize.py, made anew by the next one."""

from dataclasses import dataclass

from config import Config


@dataclass(frozen=True)
class OptimizedConfig(Config):
    """{provenance}"""

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

    Raises:
        InputError: there is no such file or no such class in it.
    """
    path = Path(name if name.endswith(".py") else f"{name.replace('.', '/')}.py")
    if not path.is_file():
        raise InputError(f"--config {name!r}: {path} does not exist; optimize.py writes it.")
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    optimized = getattr(module, "OptimizedConfig", None)
    if not (isinstance(optimized, type) and issubclass(optimized, Config)):
        raise InputError(f"--config {name!r} has no class OptimizedConfig(Config).")
    return Config(**dataclasses.asdict(optimized()))


def _field(name: str, value: object) -> str:
    hint = typing.get_type_hints(Config)[name]
    is_optional = types.NoneType in typing.get_args(hint)
    annotation = str(hint) if is_optional else type(value).__name__
    return f"    {name}: {annotation} = {value!r}"
