"""A gated linear recurrence over a text, all positions at once.

Shapes: B sequences, T positions, S kept ones before them, D = width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.block import Block
from models.short_convolution import ShortConvolution

UNBOUNDED = 2**62
"""The reach of what remembers without a limit."""

_PROJECTION_STD = 0.02


class RecurrentState(NamedTuple):
    """What a block has made of a text, for the positions after it.

    memory: (B, D), after the last position.
    mixed, fed: (B, S, D), what the convolutions before the gates and before the feed-forward layer
        read.
    """

    memory: Tensor
    mixed: Tensor
    fed: Tensor

    def clone(self) -> "RecurrentState":
        return RecurrentState(*(part.clone() for part in self))


class RecurrentBlock(Block):
    """A memory that every position overwrites a part of, entry by entry, and a feed-forward layer.

    minGRU (Feng et al., arXiv 2410.01201): gates and what is written depend on the position alone,
    not on the memory, so that all positions are computed at once. Its state has one size however
    long the text is. Among blocks of attention as in Griffin (De et al., arXiv 2402.19427).

    Args:
        width: D.
        dropout: share of what either layer adds that is dropped in training.
        feed_forward_factor: units of the feed-forward layer for every entry.
        kernel: of `ShortConvolution`s before the gates and before the feed-forward layer; 0 has
            none.
    """

    def __init__(
        self, *, width: int, dropout: float, feed_forward_factor: int = 2, kernel: int = 0
    ) -> None:
        super().__init__()
        self.recurrence_norm = nn.LayerNorm(width)
        self.recurrence_convolution = ShortConvolution(width=width, kernel=kernel)
        self.gate_candidate = nn.Linear(width, 2 * width)
        self.projection = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.projection.weight, std=_PROJECTION_STD)
        self._add_feed_forward(width, feed_forward_factor, dropout, kernel)

    @property
    def reach(self) -> int:
        return UNBOUNDED

    def forward(
        self, features_BTD: Tensor, earlier: RecurrentState | None = None, first: int = 0
    ) -> tuple[Tensor, RecurrentState]:
        """Features (B, T, D) to features of the same shape, and to the block's state.

        Args:
            features_BTD: (B, T, D).
            earlier: the state after the positions before them; none where None.
            first: as `BlockStack` takes it; a memory needs no places.
        """
        mixed_BTD = self.recurrence_norm(features_BTD)
        inputs = self.recurrence_convolution(mixed_BTD, None if earlier is None else earlier.mixed)
        gate, candidate = self.gate_candidate(inputs).chunk(2, dim=-1)
        memory_BTD = gated_scan(gate, candidate, None if earlier is None else earlier.memory)
        features_BTD = features_BTD + self.dropout(self.projection(memory_BTD))
        features_BTD, fed = self._fed_forward(
            features_BTD, None if earlier is None else earlier.fed
        )
        if earlier is not None:
            mixed_BTD = torch.cat([earlier.mixed, mixed_BTD], dim=1)
        return features_BTD, RecurrentState(memory_BTD[:, -1], mixed_BTD, fed)

    def kept(self, state: RecurrentState) -> RecurrentState:
        """Of a state what later positions hang on."""
        mixed, fed = self._last_read(state.mixed), self._last_read(state.fed)
        return RecurrentState(state.memory, mixed, fed)


def gated_scan(gate_BTD: Tensor, candidate_BTD: Tensor, before_BD: Tensor | None = None) -> Tensor:
    """`h_t = (1 - z_t) h_{t-1} + z_t g(c_t)`, z the sigmoid of the gate: (B, T, D).

    In logarithms, which need no product of many factors: appendix B of minGRU's paper, after Heinsen
    (arXiv 2311.06281). g keeps candidates above 0: c + 0.5 from 0 on, the sigmoid below.

    Args:
        gate_BTD: (B, T, D).
        candidate_BTD: c, (B, T, D).
        before_BD: h_0, (B, D), 0 or more; zeros where None.
    """
    if gate_BTD.dtype in (torch.bfloat16, torch.float16):
        # Sums of logarithms over a text would have lost their decimals.
        gate_BTD, candidate_BTD = gate_BTD.float(), candidate_BTD.float()
    log_candidate = torch.where(
        candidate_BTD >= 0, (F.relu(candidate_BTD) + 0.5).log(), F.logsigmoid(candidate_BTD)
    )
    if gate_BTD.shape[1] == 1:
        share = gate_BTD.sigmoid()
        kept = 0.0 if before_BD is None else (1 - share) * before_BD.unsqueeze(1)
        return kept + share * log_candidate.exp()
    log_keep = F.logsigmoid(-gate_BTD).cumsum(dim=1)
    log_written = F.logsigmoid(gate_BTD) + log_candidate - log_keep
    if before_BD is not None:
        log_written = torch.cat([before_BD.log().unsqueeze(1), log_written], dim=1)
    log_sum = log_written.logcumsumexp(dim=1)[:, -gate_BTD.shape[1] :]
    return (log_keep + log_sum).exp()
