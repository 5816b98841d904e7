"""A folder that is all one needs to use a trained model: weights, configuration, tokenizer."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_model as load_weights
from safetensors.torch import save_model as save_weights
from tokenizers import Tokenizer

from config import Config, InputError
from lightning_modules.settings import as_config
from lightning_modules.token_prediction_module import TokenPredictionModule

_WEIGHTS, _CONFIG, _TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"


class Model(NamedTuple):
    """A trained model, in evaluation mode, and the tokenizer of its text."""

    module: TokenPredictionModule
    tokenizer: Tokenizer


def save_model(folder: Path, module: TokenPredictionModule, tokenizer: Tokenizer) -> None:
    """Writes the folder whole or not at all; replaces one that is there."""
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    save_weights(module, str(unfinished / _WEIGHTS))
    write_config(unfinished / _CONFIG, module.config)
    tokenizer.save(str(unfinished / _TOKENIZER))
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)


def load_model(folder: Path) -> Model:
    """Reads a folder that `save_model` wrote.

    Raises:
        InputError: one of its files is missing.
    """
    for name in (_WEIGHTS, _CONFIG, _TOKENIZER):
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}; it must be the `model` folder of a run.")
    tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
    config = read_config(folder / _CONFIG)
    module = TokenPredictionModule(config, tokenizer.get_vocab_size(with_added_tokens=True))
    load_weights(module, str(folder / _WEIGHTS))
    return Model(module.eval(), tokenizer)


def write_config(path: Path, config: Config) -> None:
    """Writes a configuration as JSON, which `read_config` reads."""
    path.write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n", encoding="utf-8")


def read_config(path: Path) -> Config:
    """A configuration from its JSON."""
    return as_config(json.loads(path.read_text(encoding="utf-8")))
