"""What both modules make of a configuration."""

import dataclasses
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.context_store import ContextStore
from models.context_network import ContextNetwork
from models.gated_network import GatedContextNetwork

_GATE_RATE = 100
"""Learning rate of the gates' scale, as a multiple of the weights'. A step of Adam moves each number
by the rate at most: a weight is one of hundreds in a sum, the scale alone decides on all tokens."""


def as_config(config: Config | dict[str, Any]) -> Config:
    """A `Config`, or the fields of one as checkpoints and runs keep them.

    Those from before embeddings were shared do not name it, and have two; those from before queries
    and keys were normalised do not name that.
    """
    if isinstance(config, Config):
        return config
    return Config(**{"share_embedding": False, "query_key_norm": False, **config})


def datamodule_of(trainer: L.Trainer) -> TokenDataModule:
    """What `fit(datamodule=…)` was given."""
    datamodule: TokenDataModule = trainer.datamodule  # type: ignore[attr-defined]  # set by fit
    return datamodule


def checkpoint_record(config: Config, vocab_size: int) -> dict[str, Any]:
    """A module's arguments in plain types, which `weights_only=True` may load."""
    return {"config": dataclasses.asdict(config), "vocab_size": vocab_size}


def context_network(config: Config, vocab_size: int) -> ContextNetwork | GatedContextNetwork:
    """F in the sizes of a configuration."""
    sizes = {
        "vocab_size": vocab_size,
        "context_dim": config.context_dim,
        "embed_dim": config.embed_dim,
        "num_layers": config.num_layers,
    }
    if config.memory == "residual":
        return ContextNetwork(**sizes, update_scale=config.update_scale)
    return GatedContextNetwork(
        **sizes, update_scale=config.update_scale, gate_damping=config.gate_damping
    )


def context_store(config: Config, num_rows: int, weight: Tensor, num_sharing: int) -> ContextStore:
    """Room for the contexts of rows of tokens, which are computed in the type of a weight.

    Args:
        config: place, type and size.
        num_rows: of tokens.
        weight: on the device that computes.
        num_sharing: processes that keep as much on this machine.
    """
    return ContextStore(
        (num_rows, config.max_seq_length, config.context_dim),
        kept_as=torch.bfloat16 if config.context_dtype == "bfloat16" else weight.dtype,
        like=weight,
        storage=config.context_storage,
        folder=Path(config.cache_dir),
        num_sharing=num_sharing,
    )


def phase1_parameters(network: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
    """Parameter groups of Phase 1's optimiser: F's layers, and the scale of its gates."""
    gates = gate_parameters(network)
    groups: list[dict[str, Any]] = [{"params": list(network.get_submodule("layers").parameters())}]
    if gates:
        groups.append({"params": gates, "lr": _GATE_RATE * learning_rate})
    return groups


def gate_parameters(network: nn.Module) -> list[nn.Parameter]:
    """What all gates of F share: their scale, if it has gates."""
    return [network.log_scale] if isinstance(network, GatedContextNetwork) else []


def clip_gradients(optimizer: Optimizer, largest_norm: float | None) -> None:
    """Scales the gradients of an optimiser down to a norm; None or 0 leaves them as they are.

    In Lightning's stead, which refuses fused optimisers under mixed precision, as they would unscale
    gradients after clipping: those of bfloat16 are not scaled.
    """
    if largest_norm:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        nn.utils.clip_grad_norm_(weights, largest_norm)
