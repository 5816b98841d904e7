"""A real run, small."""

import io

import pytest
from rich.console import Console

from config import Config
from datamodules.token_datamodule import TokenDataModule
from tuning.full_length import FullRun, start_run


@pytest.fixture(scope="session")
def run(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Folder of a run that was trained to its end."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    start_run(folder, tiny_config)
    FullRun(tiny_config, tiny_data, folder, Console(file=io.StringIO())).train()
    return str(folder)
