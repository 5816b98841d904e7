"""A folder that is all one needs to use a trained model: weights, configuration, tokenizer."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_model as load_weights
from safetensors.torch import save_model as save_weights
from tokenizers import Tokenizer

from config import Config, InputError
from datamodules.tokenizer import load_tokenizer, vocab_size_of
from datamodules.whole_files import write_bytes_whole
from lightning_modules.settings import as_config
from lightning_modules.token_prediction_module import TokenPredictionModule

_WEIGHTS, _CONFIG, _TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"


class LanguageModel(NamedTuple):
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


def is_model_folder(folder: Path) -> bool:
    """Whether `save_model` wrote it."""
    return (folder / _WEIGHTS).is_file()


def load_model(folder: Path | str) -> LanguageModel:
    """Reads a folder that `save_model` wrote.

    Raises:
        InputError: one of its files is missing, broken, or of another version.
    """
    folder = Path(folder)
    for name in (_WEIGHTS, _CONFIG, _TOKENIZER):
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}; it must be the `model` folder of a run.")
    tokenizer = load_tokenizer(folder / _TOKENIZER)
    try:
        config = read_config(folder / _CONFIG)
        module = TokenPredictionModule(config, vocab_size_of(tokenizer))
        load_weights(module, str(folder / _WEIGHTS))
    except (TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{folder} is broken, or of another version: {reason}") from error
    return LanguageModel(module.eval(), tokenizer)


def write_config(path: Path, config: Config) -> None:
    """Writes a configuration as JSON, which `read_config` reads, whole or not at all."""
    text = json.dumps(dataclasses.asdict(config), indent=2) + "\n"
    write_bytes_whole(path, text.encode())


def read_config(path: Path) -> Config:
    """A configuration from its JSON.

    Raises:
        TypeError, ValueError: it is broken, or of another version.
    """
    return as_config(json.loads(path.read_text(encoding="utf-8")))
