"""Causal attention over a window of a text, with rotary positions.

Shapes: B sequences, T positions, S kept ones before them, D = width, H = heads.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.block import Block

_MOST_HEADS = 4
_ROTARY_BASE = 10_000.0
_PROJECTION_STD = 0.02


class KeyValue(NamedTuple):
    """Keys, turned by their positions, and values of S positions, (B, H, S, D / H) each."""

    key: Tensor
    value: Tensor

    def last(self, num_positions: int) -> "KeyValue":
        """Those of the last positions, all where there are fewer."""
        first = max(self.key.shape[2] - num_positions, 0)
        return KeyValue(self.key[:, :, first:], self.value[:, :, first:])

    def followed_by(self, later: "KeyValue") -> "KeyValue":
        return KeyValue(*(torch.cat(pair, dim=2) for pair in zip(self, later, strict=True)))

    def clone(self) -> "KeyValue":
        return KeyValue(self.key.clone(), self.value.clone())


class AttentionState(NamedTuple):
    """What a block has made of S positions, for those after them to look back at.

    key_value: of attention. fed: (B, S, D), what the convolution before the feed-forward layer read.
    """

    key_value: KeyValue
    fed: Tensor

    def clone(self) -> "AttentionState":
        return AttentionState(self.key_value.clone(), self.fed.clone())


class AttentionBlock(Block):
    """Attention over the last positions and a feed-forward layer, both pre-norm, added to the input.

    A position sees itself and the `window - 1` before it; where they stand is told by rotary
    positions (Su et al., arXiv 2104.09864), which know distances alone. A single attention over what
    a recurrence has read is most of what many are worth (Merity, arXiv 1911.11423).

    Args:
        width: D.
        window: 1 or more.
        dropout: share of what either layer adds that is dropped in training.
        feed_forward_factor: units of the feed-forward layer for every entry.
        kernel: of a `ShortConvolution` before the feed-forward layer; 0 has none.
        query_key_norm: scale each head's queries and keys to a root mean square of 1, so that their
            products stay small at higher learning rates (Henry et al., arXiv 2010.04245).
    """

    def __init__(
        self,
        *,
        width: int,
        window: int,
        dropout: float,
        feed_forward_factor: int = 2,
        kernel: int = 0,
        query_key_norm: bool = False,
    ) -> None:
        super().__init__()
        self.window = window
        self.query_key_norm = query_key_norm
        self.num_heads = math.gcd(_MOST_HEADS, width)
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.projection = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.projection.weight, std=_PROJECTION_STD)
        self._add_feed_forward(width, feed_forward_factor, dropout, kernel)

    @property
    def reach(self) -> int:
        """Positions before it that a position depends on."""
        return self.window - 1 + self.convolution.num_earlier

    def forward(
        self, features_BTD: Tensor, earlier: AttentionState | None = None, first: int = 0
    ) -> tuple[Tensor, AttentionState]:
        """Features (B, T, D) to features of the same shape, and to the block's state.

        Args:
            features_BTD: (B, T, D).
            earlier: the state of the S positions before them; none where None. What `kept` leaves of
                it is all that counts.
            first: the first position's place in the text. Attention depends on distances alone; the
                place is needed because keys are kept as they were turned at theirs.

        Returns:
            (B, T, D), and the state of these positions behind all earlier ones that any of them sees.
        """
        kept = None if earlier is None else self.kept(earlier)
        normed = self.attention_norm(features_BTD)
        attended, seen = self._attend(normed, None if kept is None else kept.key_value, first)
        features_BTD = features_BTD + self.dropout(attended)
        features_BTD, fed = self._fed_forward(features_BTD, None if kept is None else kept.fed)
        return features_BTD, AttentionState(seen, fed)

    def kept(self, state: AttentionState) -> AttentionState:
        """Of a state what later positions hang on."""
        return AttentionState(state.key_value.last(self.window - 1), self._last_read(state.fed))

    def _attend(
        self, normed_BTD: Tensor, kept: KeyValue | None, first: int
    ) -> tuple[Tensor, KeyValue]:
        """What is read of all that is seen, (B, T, D), and that."""
        query = self._heads(self.query(normed_BTD))
        key, value = (self._heads(part) for part in self.key_value(normed_BTD).chunk(2, dim=-1))
        if self.query_key_norm:
            query, key = (F.rms_norm(part, part.shape[-1:]) for part in (query, key))
        num_new = query.shape[2]
        positions = torch.arange(first, first + num_new, device=key.device)
        rotation = rotation_of(positions, key.shape[-1])
        seen = KeyValue(rotated(key, rotation), value)
        if kept is not None:
            seen = kept.followed_by(seen)
        num_kept = seen.key.shape[2] - num_new
        is_last_alone = num_new == 1  # and sees all that is kept
        is_causal = not is_last_alone and num_kept == 0 and num_new <= self.window
        mask = None
        if not is_last_alone and not is_causal:
            mask = visible(num_new, num_kept, self.window, query.device)
        attended = F.scaled_dot_product_attention(
            rotated(query, rotation), seen.key, seen.value, attn_mask=mask, is_causal=is_causal
        )
        projected: Tensor = self.projection(attended.transpose(1, 2).flatten(2))
        return projected, seen

    def _heads(self, features_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, H, T, D / H)."""
        return features_BTD.view(*features_BTD.shape[:2], self.num_heads, -1).transpose(1, 2)


def rotation_of(positions_T: Tensor, head_dim: int) -> Tensor:
    """Cosines and sines of each position's angles, (2, T, head_dim // 2) float64."""
    half = head_dim // 2
    frequency = _ROTARY_BASE ** (-torch.arange(half, device=positions_T.device) / half)
    # In double precision: far into a text, an angle of single precision has lost its decimals.
    angle = positions_T.double().unsqueeze(1) * frequency.double()
    return torch.stack([angle.cos(), angle.sin()])


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
