"""Causal attention over a window of a text, with rotary positions.

Shapes: B sequences, T positions, S kept ones before them, D = width, K = 2 D, a key and a value,
H = heads.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MOST_HEADS = 4
_ROTARY_BASE = 10_000.0
_FEED_FORWARD = 2
"""Units of the feed-forward layer for every entry."""
_PROJECTION_STD = 0.02
_UPDATE_STD = 1e-3


class AttentionBlock(nn.Module):
    """Attention over the last positions and a feed-forward layer, both pre-norm, added to the input.

    A position sees itself and the `window - 1` before it; where they stand is told by rotary
    positions (Su et al., arXiv 2104.09864), which know distances alone. A single attention over what
    a recurrence has read is most of what many are worth (Merity, arXiv 1911.11423).

    Args:
        width: D.
        window: 1 or more.
        dropout: share of what either layer adds that is dropped in training.
    """

    def __init__(self, *, width: int, window: int, dropout: float) -> None:
        super().__init__()
        self.window = window
        self.num_heads = math.gcd(_MOST_HEADS, width)
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.projection = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.projection.weight, std=_PROJECTION_STD)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, _FEED_FORWARD * width)
        self.outer = nn.Linear(_FEED_FORWARD * width, width)
        nn.init.normal_(self.outer.weight, std=_UPDATE_STD)
        nn.init.zeros_(self.outer.bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, features_BTD: Tensor, earlier_BSK: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features (B, T, D) to features of the same shape, and to keys and values.

        Args:
            features_BTD: (B, T, D).
            earlier_BSK: keys and values of the positions before them, (B, S, 2 D); none where None.
                The last `window - 1` of them are all that counts.

        Returns:
            (B, T, D), and the keys and values of these positions behind those of the earlier ones
            that any of them sees, (B, at most window - 1 + T, 2 D).
        """
        normed = self.attention_norm(features_BTD)
        text_BSK = self.key_value(normed)
        if earlier_BSK is not None:
            num_new = features_BTD.shape[1]
            text_BSK = torch.cat([earlier_BSK, text_BSK], dim=1)[:, 1 - self.window - num_new :]
        features_BTD = features_BTD + self.dropout(self._attended(self.query(normed), text_BSK))
        hidden = F.gelu(self.inner(self.feed_forward_norm(features_BTD)))
        return features_BTD + self.outer(self.dropout(hidden)), text_BSK

    def _attended(self, query_BTD: Tensor, text_BSK: Tensor) -> Tensor:
        num_new, num_in_all = query_BTD.shape[1], text_BSK.shape[1]
        num_kept = num_in_all - num_new
        query = self._heads(query_BTD)
        key, value = (self._heads(part) for part in text_BSK.chunk(2, dim=-1))
        # Keys are kept unturned: only how far apart two positions are has a say.
        positions = torch.arange(num_in_all, device=text_BSK.device)
        rotation = rotation_of(positions, query.shape[-1])
        mask = None
        if num_kept > 0 or num_new > self.window:
            mask = visible(num_new, num_kept, self.window, text_BSK.device)
        attended = F.scaled_dot_product_attention(
            rotated(query, rotation[:, num_kept:]),
            rotated(key, rotation),
            value,
            attn_mask=mask,
            is_causal=mask is None,
        )
        projected: Tensor = self.projection(attended.transpose(1, 2).flatten(2))
        return projected

    def _heads(self, features_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, H, T, D / H)."""
        return features_BTD.view(*features_BTD.shape[:2], self.num_heads, -1).transpose(1, 2)


class Attended(NamedTuple):
    """What a stack of blocks makes of (B, T, D) features.

    key_values: keys and values of each block, as it gives them; none without blocks.
    output: (B, T, D), what the last block gives.
    """

    key_values: tuple[Tensor, ...]
    output: Tensor


class AttentionStack(nn.Module):
    """Blocks of attention, each over what the one before it gives.

    Args:
        num_layers: blocks; 0 and features are given back as they are.
        width: D.
        window: of each block; a position knows of `reach` positions in all.
        dropout: as `AttentionBlock` takes it.
    """

    def __init__(self, *, num_layers: int, width: int, window: int, dropout: float) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(
            AttentionBlock(width=width, window=window, dropout=dropout) for _ in range(num_layers)
        )
        self.register_load_state_dict_pre_hook(_number_a_single_block)  # type: ignore[no-untyped-call]  # PyTorch's

    @property
    def reach(self) -> int:
        """Positions, the last among them, that what is given for the last one hangs on."""
        return 1 + len(self.blocks) * (self.window - 1)

    def forward(self, features_BTD: Tensor, earlier: Sequence[Tensor] | None = None) -> Attended:
        """Features (B, T, D) through every block.

        Args:
            features_BTD: (B, T, D).
            earlier: keys and values of each block for the positions before them, (B, S, 2 D); none
                where None.
        """
        key_values = []
        for index, block in enumerate(self.blocks):
            features_BTD, text_BSK = block(features_BTD, earlier[index] if earlier else None)
            key_values.append(text_BSK)
        return Attended(tuple(key_values), features_BTD)


def _number_a_single_block(
    stack: nn.Module, weights: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """Weights that were saved when a stack was one block have no number of a block."""
    for name in list(weights):
        if name.startswith(prefix) and not name.startswith(f"{prefix}blocks."):
            weights[f"{prefix}blocks.0.{name.removeprefix(prefix)}"] = weights.pop(name)


def rotation_of(positions_T: Tensor, head_dim: int) -> Tensor:
    """Cosines and sines of each position's angles, (2, T, head_dim // 2)."""
    half = head_dim // 2
    frequency = _ROTARY_BASE ** (-torch.arange(half, device=positions_T.device) / half)
    # In double precision: far into a text, an angle of single precision has lost its decimals.
    angle = positions_T.double().unsqueeze(1) * frequency.double()
    return torch.stack([angle.cos(), angle.sin()]).float()


def rotated(heads: Tensor, rotation: Tensor) -> Tensor:
    """Turns pairs of entries by their position's angle; the last of an odd number stays."""
    cosine, sine = rotation.to(heads.dtype)
    half = cosine.shape[1]
    first, second, rest = torch.split(heads, [half, half, heads.shape[-1] - 2 * half], dim=-1)
    turned = (first * cosine - second * sine, first * sine + second * cosine)
    return torch.cat([*turned, rest], dim=-1)


def visible(num_new: int, num_kept: int, window: int, device: torch.device) -> Tensor:
    """Which of the kept and new positions each new one sees, (T, S + T)."""
    key = torch.arange(num_kept + num_new, device=device)
    distance = key[num_kept:].unsqueeze(1) - key
    return (distance >= 0) & (distance < window)
