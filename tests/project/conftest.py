"""A real run, small."""

import dataclasses
import io

import pytest
from rich.console import Console

from config import Config
from datamodules.token_datamodule import TokenDataModule
from tuning.full_length import FullRun
from tuning.run_folder import start_run


@pytest.fixture(scope="session")
def run(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Folder of a run that was trained to its end, of a model that copies too."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = dataclasses.replace(
        tiny_config, copy_window=16, attention_window=8, attention_layers=2, convolution_kernel=2,
        recurrent_layers=1,
        label_smoothing=0.1,
    )  # fmt: skip
    start_run(folder, config)
    full_run = FullRun(config, tiny_data, folder, Console(file=io.StringIO()))
    full_run.export(full_run.train())
    return str(folder)
