"""A model and its tokenizer from a checkpoint alone, and one line for what is none."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from config import Config, InputError
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.language_model import load_language_model
from lightning_modules.token_prediction_module import TokenPredictionModule


@pytest.fixture(scope="module")
def checkpoint(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Of a Phase 2 of one step, in a run's folder."""
    module = TokenPredictionModule(tiny_config, tiny_data.vocab_size)
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=tiny_data)
    path = tmp_path_factory.mktemp("run") / "phase2" / "best.ckpt"
    trainer.save_checkpoint(path)
    return path


def test_the_model_is_the_one_that_was_trained(
    checkpoint: Path, tiny_data: TokenDataModule
) -> None:
    expected = TokenPredictionModule.load_from_checkpoint(checkpoint, weights_only=True).eval()
    tokens = tiny_data.val_rows.tokens
    for path in (checkpoint, checkpoint.parent.parent):
        model = load_language_model(path)
        with torch.no_grad():
            assert torch.equal(model.module(tokens), expected(tokens))
        assert model.tokenizer.to_str() == tiny_data.tokenizer.to_str()
        text = "the end<|endoftext|>of a text"
        assert model.tokenizer.encode(text).ids == tiny_data.tokenizer.encode(text).ids


def test_a_loaded_module_keeps_the_tokenizer_when_it_is_saved_again(checkpoint: Path) -> None:
    module = TokenPredictionModule.load_from_checkpoint(checkpoint, weights_only=True)
    saved: dict[str, Any] = {}
    module.on_save_checkpoint(saved)
    assert saved["tokenizer"] == load_language_model(checkpoint).tokenizer.to_str()


def without_tokenizer(content: dict[str, Any]) -> None:
    del content["tokenizer"]


def wider(content: dict[str, Any]) -> None:
    content["hyper_parameters"]["config"]["context_dim"] *= 2


def unknown_field(content: dict[str, Any]) -> None:
    content["hyper_parameters"]["config"]["warp_drive"] = True


def no_model(content: dict[str, Any]) -> None:
    del content["state_dict"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_tokenizer, "holds no tokenizer, as older ones do not"),
        (wider, "is of another version: .*size mismatch"),
        (unknown_field, "is of another version: .*warp_drive"),
        (no_model, r"is no checkpoint of train\.py"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_told_in_one_line(
    checkpoint: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    change(content)
    torch.save(content, tmp_path / "changed.ckpt")
    with pytest.raises(InputError, match=message) as raised:
        load_language_model(tmp_path / "changed.ckpt")
    assert "\n" not in str(raised.value)


def test_a_checkpoint_of_phase_1_is_told(tiny_config: Config, tmp_path: Path) -> None:
    module = FixedPointModule(tiny_config, 300)
    hyper_parameters = {"config": dataclasses.asdict(tiny_config), "vocab_size": 300}
    content = {"hyper_parameters": hyper_parameters, "state_dict": module.state_dict()}
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match="is Phase 1's; it must be Phase 2's"):
        load_language_model(tmp_path / "last.ckpt")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 no zip either"])
def test_a_file_that_is_no_checkpoint_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(InputError, match="is no checkpoint, or a broken one"):
        load_language_model(tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="it must be a run's folder"):
        load_language_model(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        load_language_model(tmp_path / "y.ckpt")


def test_half_a_checkpoint_is_told(checkpoint: Path, tmp_path: Path) -> None:
    content = checkpoint.read_bytes()
    (tmp_path / "half.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="is no checkpoint, or a broken one"):
        load_language_model(tmp_path / "half.ckpt")
