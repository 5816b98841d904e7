"""What blocks of the token head have in common, and blocks one on top of the other.

Shapes: B sequences, T positions, S kept ones before them, D = width.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.short_convolution import ShortConvolution

_UPDATE_STD = 1e-3


class LooksBack(Protocol):
    """What a stack asks of its blocks, beside their output and state."""

    @property
    def reach(self) -> int:
        """Positions before it that a position depends on."""

    def kept(self, state: Any) -> Any:
        """Of a state what later positions hang on."""


class Block(nn.Module):
    """Something that looks back at a text, and a feed-forward layer; both pre-norm and added.

    A subclass looks back (`LooksBack`), and keeps in a state of its own what later positions need of earlier ones.
    """

    def _last_read(self, read: Tensor) -> Tensor:
        """Of what a convolution read, (B, S, D), what the next position needs."""
        return read[:, max(read.shape[1] - self.convolution.num_earlier, 0) :]

    def _add_feed_forward(self, width: int, factor: int, dropout: float, kernel: int) -> None:
        """Makes the layer, which starts almost without a say; after all else, as seeds know it."""
        self.feed_forward_norm = nn.LayerNorm(width)
        self.convolution = ShortConvolution(width=width, kernel=kernel)
        self.inner = nn.Linear(width, factor * width)
        self.outer = nn.Linear(factor * width, width)
        nn.init.normal_(self.outer.weight, std=_UPDATE_STD)
        nn.init.zeros_(self.outer.bias)
        self.dropout = nn.Dropout(dropout)

    def _fed_forward(self, features_BTD: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features (B, T, D) after the layer, and what its convolution read, (B, S + T, D).

        Args:
            features_BTD: (B, T, D).
            before: (B, S, D), what the convolution read of the positions before them; none where
                None.
        """
        fed_BTD = self.feed_forward_norm(features_BTD)
        mixed = self.convolution(fed_BTD, before)
        hidden = F.gelu(self.inner(mixed))
        features_BTD = features_BTD + self.outer(self.dropout(hidden))
        if before is not None:
            fed_BTD = torch.cat([before, fed_BTD], dim=1)
        return features_BTD, fed_BTD


class Stacked(NamedTuple):
    """What a stack of blocks makes of (B, T, D) features.

    states: of each block, as it gives them; none without blocks.
    output: (B, T, D), what the last block gives.
    """

    states: tuple[Any, ...]
    output: Tensor


class BlockStack(nn.Module):
    """Blocks, each over what the one before it gives.

    Args:
        blocks: from the first on; with none, features are given back as they are.
    """

    def __init__(self, blocks: Iterable[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.register_load_state_dict_pre_hook(_number_a_single_block)  # type: ignore[no-untyped-call]  # PyTorch's

    @property
    def reach(self) -> int:
        """Positions before it that what is given for a position depends on."""
        return sum(block.reach for block in self._each())

    def forward(
        self, features_BTD: Tensor, earlier: Sequence[Any] | None = None, first: int = 0
    ) -> Stacked:
        """Features (B, T, D) through every block.

        Args:
            features_BTD: (B, T, D).
            earlier: the state of each block for the positions before them; none where None.
            first: the first position's place in the text.
        """
        states = []
        for index, block in enumerate(self.blocks):
            before = None if earlier is None else earlier[index]
            features_BTD, state = block(features_BTD, before, first)
            states.append(state)
        return Stacked(tuple(states), features_BTD)

    def kept(self, states: Sequence[Any]) -> tuple[Any, ...]:
        """Of each block's state what later positions hang on, in memory of its own."""
        pairs = zip(self._each(), states, strict=True)
        return tuple(block.kept(state).clone() for block, state in pairs)

    def _each(self) -> list[LooksBack]:
        return cast("list[LooksBack]", list(self.blocks))


def _number_a_single_block(
    stack: nn.Module, weights: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """Weights that were saved when a stack was one block have no number of a block."""
    for name in list(weights):
        if name.startswith(prefix) and not name.startswith(f"{prefix}blocks."):
            weights[f"{prefix}blocks.0.{name.removeprefix(prefix)}"] = weights.pop(name)
