"""Tiny settings and a tiny real corpus for every room."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

# One thread: small tensors gain nothing from two, and results do not depend on the machine's load.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

import command_line
from config import Config
from datamodules.token_datamodule import TokenDataModule
from tests.commands import CHAT, Call, Ran, as_before


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same random numbers in every test, alone as among others."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def added_since_sharing() -> tuple[str, ...]:
    """Fields of `Config` that what was saved before embeddings were shared does not have."""
    return (
        "share_embedding", "start_embedding", "label_smoothing", "copy_window",
        "attention_window", "attention_layers", "query_key_norm", "convolution_kernel",
        "phase2_optimizer", "feed_forward_factor", "recurrent_layers",
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Sizes that train both phases in about a second."""
    return Config(
        corpus=str(CHAT),
        vocab_size=300,
        num_samples=8,
        num_val_samples=4,
        max_seq_length=32,
        batch_size=4,
        context_dim=16,
        embed_dim=8,
        head_embed_dim=8,
        head_hidden_dim=16,
        phase1_max_epochs=3,
        phase2_epochs=2,
        identity_mapping_threshold=1.0,
        min_effective_rank=0.05,
        accelerator="cpu",
        cache_dir=str(tmp_path_factory.mktemp("cache")),
    )


@pytest.fixture(scope="session")
def tiny_data(tiny_config: Config) -> TokenDataModule:
    """The tokens of the tiny corpus."""
    datamodule = TokenDataModule(tiny_config)
    datamodule.setup()
    return datamodule


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Call:
    """Runs a script's `main` as the script does, in the test's own process and folder.

    This process has imported already what takes a new one five seconds.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(command_line, "listen_for_signals", lambda: None)

    def called(main: Callable[[], int | None], *arguments: str, expect: int = 0) -> Ran:
        monkeypatch.setattr(sys, "argv", [f"{main.__module__}.py", *arguments])
        with as_before(), pytest.raises(SystemExit) as ended:
            command_line.run(main)
        ran = Ran(*capfd.readouterr())
        assert (ended.value.code or 0) == expect, ran.stdout + ran.stderr
        return ran

    return called
