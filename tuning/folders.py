"""Folders to write to, tried at the start."""

import tempfile
from pathlib import Path

from config import InputError


def require_writable_folder(option: str, path: Path) -> None:
    """Makes a folder where there is none, and finds out now, not hours later, that it takes no file.

    Args:
        option: that gave the path, with its dashes.
        path: of the folder.

    Raises:
        InputError: it cannot be made, or takes no file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{option} {path} cannot be written to: {reason}.") from error
