"""The folder of a full-length run, and what the run was started with."""

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from config import Config, InputError
from datamodules.whole_files import write_bytes_whole
from lightning_modules.model_folder import read_config, write_config
from tuning.folders import require_writable_folder
from tuning.run_options import RunOptions

_CONFIG_FILE, _OPTIONS_FILE = "config.json", "options.json"
_Stored = TypeVar("_Stored", Config, RunOptions)


def start_run(run_dir: Path, config: Config, options: RunOptions = RunOptions()) -> None:  # noqa: B008  # frozen
    """Makes a run directory and stores the configuration and the options in it.

    Raises:
        InputError: there is something in the folder already, or it cannot be written to.
    """
    require_new_folder(run_dir)
    text = json.dumps(dataclasses.asdict(options), indent=2) + "\n"
    write_bytes_whole(run_dir / _OPTIONS_FILE, text.encode())
    # Last: a folder that has it is a run's.
    write_config(run_dir / _CONFIG_FILE, config)


def require_new_folder(run_dir: Path) -> None:
    """Makes the folder of a run that is not there yet.

    Raises:
        InputError: there is something in it, other than what a start that was killed has left, or it
            cannot be written to.
    """
    require_writable_folder("--run-dir", run_dir)
    half_started = {_OPTIONS_FILE, f"{_OPTIONS_FILE}.part", f"{_CONFIG_FILE}.part"}
    if {path.name for path in run_dir.iterdir()} - half_started:
        folder = shlex.quote(str(run_dir))
        raise InputError(
            f"--run-dir {run_dir} is not empty; give another, or --resume {folder} to go on."
        )


def stored_config(run_dir: Path) -> Config:
    """The configuration of a run that is continued.

    Raises:
        InputError: the folder is no run's, or the file is broken.
    """
    return _stored(run_dir, _CONFIG_FILE, read_config)


def stored_options(run_dir: Path) -> RunOptions:
    """The options of a run that is continued.

    Raises:
        InputError: the folder is no run's, or the file is broken.
    """

    def read(path: Path) -> RunOptions:
        return RunOptions(**json.loads(path.read_text(encoding="utf-8")))

    return _stored(run_dir, _OPTIONS_FILE, read)


def _stored(run_dir: Path, name: str, read: Callable[[Path], _Stored]) -> _Stored:
    path = run_dir / name
    if not path.is_file():
        raise InputError(f"--resume {run_dir} has no {name}; it must be a run's folder.")
    try:
        return read(path)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is broken, or of another version: {error}") from error
