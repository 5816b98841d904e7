"""A run's folder: started once, whole or not at all, and refused in one line where it is broken."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from config import Config, InputError
from tuning.run_folder import start_run, stored_config, stored_options
from tuning.run_options import RunOptions


def test_a_folder_that_is_not_empty_is_not_written_into(
    tiny_config: Config, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="is not empty"):
        start_run(tmp_path, tiny_config)
    with pytest.raises(InputError, match=r"has no config\.json"):
        stored_config(tmp_path)


@pytest.mark.parametrize("killed_at", [1, 2])
@pytest.mark.parametrize("is_amid_file", [False, True])
def test_a_start_that_was_killed_is_started_again(
    tiny_config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_at: int,
    is_amid_file: bool,
) -> None:
    """Before one of its two files was renamed: as in a kill, what was written of it stays."""
    renames = itertools.count(1)
    rename = Path.replace

    def killed(path: Path, target: Path) -> Path:
        if next(renames) == killed_at:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        if is_amid_file:
            patched.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            start_run(tmp_path, tiny_config, RunOptions(patience=3))
    with pytest.raises(InputError, match=r"has no config\.json"):
        stored_config(tmp_path)
    start_run(tmp_path, tiny_config, RunOptions(patience=4))
    assert stored_options(tmp_path) == RunOptions(patience=4)
    assert stored_config(tmp_path) == tiny_config
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "options.json"]
    with pytest.raises(InputError, match=f"is not empty; give another, or --resume {tmp_path}"):
        start_run(tmp_path, tiny_config)


@pytest.mark.parametrize(
    ("name", "read"), [("config.json", stored_config), ("options.json", stored_options)]
)
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"\xff", b'{"colour": 1}', b'{"devices": 0, "seed": 0}']
)
def test_a_run_whose_files_are_broken_is_refused_in_one_line(
    tiny_config: Config,
    tmp_path: Path,
    name: str,
    read: Callable[[Path], object],
    content: bytes,
) -> None:
    start_run(tmp_path, tiny_config)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as refused:
        read(tmp_path)
    told = str(refused.value)
    assert told.startswith(f"{tmp_path / name} is broken, or of another version: ")
    assert "\n" not in told


def test_a_run_without_options_is_refused(tiny_config: Config, tmp_path: Path) -> None:
    start_run(tmp_path, tiny_config)
    (tmp_path / "options.json").unlink()
    with pytest.raises(InputError, match=r"has no options\.json; it must be a run's folder"):
        stored_options(tmp_path)
