"""A trained model and its tokenizer from a checkpoint, or from a model's folder, alone."""

import pickle
from pathlib import Path
from typing import Any

import torch

from config import InputError
from datamodules.tokenizer import parse_tokenizer
from lightning_modules.model_folder import LanguageModel, is_model_folder, load_model
from lightning_modules.token_prediction_module import TOKENIZER_KEY, TokenPredictionModule

_BEST = Path("phase2", "best.ckpt")


def load_language_model(path: Path | str, device: torch.device | str = "cpu") -> LanguageModel:
    """Loads Phase 2's checkpoint, the best one of a run's folder, or a run's `model` folder.

    Raises:
        InputError: there is none, or it cannot be used.
    """
    path = Path(path)
    if is_model_folder(path):
        model = load_model(path)
        model.module.to(device)
        return model
    if path.is_dir():
        if not (path / _BEST).is_file():
            raise InputError(
                f"--checkpoint {path} has no {_BEST}; it must be a run's folder, or its `model`."
            )
        path = path / _BEST
    checkpoint = _read(path)
    hyper_parameters, state = checkpoint.get("hyper_parameters"), checkpoint.get("state_dict")
    if not isinstance(hyper_parameters, dict) or not isinstance(state, dict):
        raise InputError(f"--checkpoint {path} is no checkpoint of train.py.")
    if not any(name.startswith("head.") for name in state):
        raise InputError(f"--checkpoint {path} is Phase 1's; it must be Phase 2's, {_BEST}.")
    if TOKENIZER_KEY not in checkpoint:
        raise InputError(
            f"--checkpoint {path} holds no tokenizer, as older ones do not; train again for one."
        )
    try:
        module = TokenPredictionModule(**hyper_parameters)
        module.load_state_dict(state)
    except (TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--checkpoint {path} is of another version: {reason}") from error
    module.to(device).eval()
    return LanguageModel(module, parse_tokenizer(checkpoint[TOKENIZER_KEY]))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"--checkpoint {path} does not exist.")
    try:
        # Mapped: the optimiser's state, the most of the file, is not read.
        checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(f"--checkpoint {path} is no checkpoint, or a broken one.") from error
    return checkpoint if isinstance(checkpoint, dict) else {}
