"""What both modules make of a configuration."""

import dataclasses
from typing import Any

from config import Config
from models.context_network import ContextNetwork
from models.gated_network import GatedContextNetwork


def as_config(config: Config | dict[str, Any]) -> Config:
    """A `Config`, or the fields of one as a checkpoint keeps them."""
    return config if isinstance(config, Config) else Config(**config)


def checkpoint_record(config: Config, vocab_size: int) -> dict[str, Any]:
    """A module's arguments in plain types, which `weights_only=True` may load."""
    return {"config": dataclasses.asdict(config), "vocab_size": vocab_size}


def can_fuse(config: Config) -> bool:
    """Whether a fused optimiser may be used: Lightning cannot clip under mixed precision with one."""
    return not config.precision.endswith("-mixed")


def context_network(config: Config, vocab_size: int) -> ContextNetwork | GatedContextNetwork:
    """F in the sizes of a configuration."""
    network_class = GatedContextNetwork if config.memory == "gated" else ContextNetwork
    return network_class(
        vocab_size=vocab_size,
        context_dim=config.context_dim,
        embed_dim=config.embed_dim,
        num_layers=config.num_layers,
        update_scale=config.update_scale,
    )
