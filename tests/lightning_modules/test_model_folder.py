"""The folder that is all one needs to use a model."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from config import Config, InputError
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.language_model import load_language_model
from lightning_modules.model_folder import load_model, save_model
from lightning_modules.token_prediction_module import TokenPredictionModule


@pytest.mark.parametrize("freeze_context", [True, False])
@pytest.mark.parametrize("memory", ["gated", "residual"])
def test_a_model_is_used_without_its_run(
    memory: str,
    freeze_context: bool,
    tiny_config: Config,
    tiny_data: TokenDataModule,
    tmp_path: Path,
) -> None:
    config = dataclasses.replace(
        tiny_config,
        memory=memory,
        freeze_context=freeze_context,
        copy_window=5,
        attention_window=7,
        attention_layers=2,
        recurrent_layers=1,
        feed_forward_factor=3,
        convolution_kernel=2,
    )
    module = TokenPredictionModule(config, tiny_data.vocab_size)
    module.head.set_token_counts(tiny_data.token_counts())
    for _ in range(2):  # the second replaces the first
        save_model(tmp_path / "model", module, tiny_data.tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    shutil.move(tmp_path / "model", tmp_path / "elsewhere")

    loaded = load_model(tmp_path / "elsewhere")
    assert loaded.module.config == config
    assert loaded.tokenizer.to_str() == tiny_data.tokenizer.to_str()
    tokens = tiny_data.val_rows.tokens
    with torch.no_grad():
        assert torch.equal(loaded.module(tokens), module.eval()(tokens))


def test_a_model_from_before_embeddings_were_shared(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    added_since_sharing: tuple[str, ...],
    tmp_path: Path,
) -> None:
    config = dataclasses.replace(
        tiny_config, freeze_context=False, share_embedding=False, query_key_norm=False
    )
    module = TokenPredictionModule(config, tiny_data.vocab_size)
    save_model(tmp_path / "model", module, tiny_data.tokenizer)
    path = tmp_path / "model" / "config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    for name in added_since_sharing:
        del fields[name]
    path.write_text(json.dumps(fields), encoding="utf-8")
    loaded = load_model(tmp_path / "model")
    assert loaded.module.config == config
    tokens = tiny_data.val_rows.tokens
    with torch.no_grad():
        assert torch.equal(loaded.module(tokens), module.eval()(tokens))


def test_a_prompt_is_read_as_text_is_in_training(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    module = TokenPredictionModule(tiny_config, tiny_data.vocab_size)
    save_model(tmp_path / "model", module, tiny_data.tokenizer)
    tokenizer = load_language_model(tmp_path / "model").tokenizer
    text = "the end<|endoftext|>of a text"
    assert tokenizer.encode(text).ids == tiny_data.tokenizer.encode(text).ids


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_folder_with_a_broken_file_is_refused_in_one_line(
    name: str, tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    module = TokenPredictionModule(tiny_config, tiny_data.vocab_size)
    save_model(tmp_path / "model", module, tiny_data.tokenizer)
    path = tmp_path / "model" / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError) as raised:
        load_language_model(tmp_path / "model")
    assert str(tmp_path / "model") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no model\.safetensors; it must be the `model`"):
        load_model(tmp_path)
