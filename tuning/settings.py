"""What defines a study's objective, as the study records it."""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path

from config import Config
from datamodules.token_datamodule import TokenDataModule
from tuning.search_space import SearchSpace

_ROOT = Path(__file__).parents[1]
_SOURCES = (
    "config.py",
    "models/*.py",
    "datamodules/*.py",
    "lightning_modules/*.py",
    "callbacks/*.py",
    "tuning/objective.py",
    "tuning/training.py",
)
_LIBRARIES = ("torch", "lightning", "optuna")
_MACHINE_FIELDS = (
    "accelerator", "cache_dir", "context_storage", "corpus", "num_workers", "tokenizer"
)  # fmt: skip
"""Fields that may differ from one machine to the next without changing what is measured much: tokens
and tokenizer are compared by what is in them."""

Settings = dict[str, object]


def settings_of(config: Config, datamodule: TokenDataModule, space: SearchSpace) -> Settings:
    """Configuration, ranges, digests of tokens, tokenizer and source, versions; JSON's own types."""
    settings: Settings = dataclasses.asdict(config)
    for name in _MACHINE_FIELDS:
        del settings[name]
    for name, bounds in space.describe().items():
        settings[f"range of {name}"] = bounds
    tokens = hashlib.sha256()
    for rows in (datamodule.train_rows, datamodule.val_rows):
        tokens.update(repr(rows.shape).encode())
        for part in rows.parts():
            tokens.update(part.numpy().tobytes())
    settings["tokens"] = _short(tokens)
    settings["tokenizer_json"] = _short(hashlib.sha256(datamodule.tokenizer.to_str().encode()))
    settings["code"] = code_version()
    for name in _LIBRARIES:
        settings[f"version of {name}"] = importlib.metadata.version(name).partition("+")[0]
    # Through JSON, as the storage will give it back.
    return dict(json.loads(json.dumps(settings)))


def code_version() -> str:
    """A digest of the source files that `val_ppl` depends on."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _SOURCES for path in _ROOT.glob(pattern)):
        digest.update(path.relative_to(_ROOT).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return _short(digest)


def difference(stored: Mapping[str, object], settings: Mapping[str, object]) -> str:
    """`batch_size was 4 and is 8; …`; empty where nothing differs."""
    names = sorted((stored.keys() | settings.keys()) - set(_MACHINE_FIELDS))
    return "; ".join(
        f"{name} was {stored.get(name)!r} and is {settings.get(name)!r}"
        for name in names
        if stored.get(name) != settings.get(name)
    )


def _short(digest: "hashlib._Hash") -> str:
    return digest.hexdigest()[:12]
