"""minGRU (Feng et al., Were RNNs All We Needed?, arXiv 2410.01201), trained by a parallel scan.

Shapes: B sequences, T tokens, D = width, V = vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.baselines.tied_embedding import FeedForward, TiedEmbedding
from models.recurrence import gated_scan

NUM_LAYERS = 3
_KERNEL = 4


class LayerState(NamedTuple):
    """inputs: the last three that the convolution read, (B, 3, D). hidden: (B, D), above 0."""

    inputs: Tensor
    hidden: Tensor


State = list[LayerState]


class MinGRU(nn.Module):
    """Blocks of convolution, minGRU and feed-forward layer, between tied embeddings.

    Args:
        vocab_size: V.
        width: D.
        dropout: of embeddings, what a block adds, and what the output reads.
    """

    def __init__(self, *, vocab_size: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embedding = TiedEmbedding(vocab_size, width)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(NUM_LAYERS))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Token ids (B, T) to logits (B, T, V) of the token after each."""
        return self.embedding.logits(self.read(tokens_BT, None)[0])

    def step(self, tokens_B: Tensor, state: State | None) -> tuple[Tensor, State]:
        """One token a row: logits (B, V), and the state, whose size does not grow."""
        features, state = self.read(tokens_B.unsqueeze(1), state)
        return self.embedding.logits(features.squeeze(1)), state

    def read(self, tokens_BT: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Features (B, T, D) that have read each token, and the state after the last."""
        hidden = self.dropout(self.embedding(tokens_BT))
        after: State = []
        for index, block in enumerate(self.blocks):
            hidden, block_state = block(hidden, None if state is None else state[index])
            after.append(block_state)
        return self.dropout(self.norm(hidden)), after


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.recurrence_norm = nn.LayerNorm(width)
        self.convolution = nn.Conv1d(width, width, _KERNEL, groups=width)
        self.gate_candidate = nn.Linear(width, 2 * width)
        self.projection = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.projection.weight, std=0.02)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_BTD: Tensor, state: LayerState | None) -> tuple[Tensor, LayerState]:
        normed = self.recurrence_norm(hidden_BTD)
        before = normed.new_zeros(len(normed), _KERNEL - 1, normed.shape[2])
        inputs = torch.cat([before if state is None else state.inputs, normed], dim=1)
        mixed = self.convolution(inputs.transpose(1, 2)).transpose(1, 2)
        gate, candidate = self.gate_candidate(mixed).chunk(2, dim=-1)
        memory = gated_scan(gate, candidate, None if state is None else state.hidden)
        hidden_BTD = hidden_BTD + self.dropout(self.projection(memory))
        hidden_BTD = hidden_BTD + self.feed_forward(self.feed_forward_norm(hidden_BTD))
        return hidden_BTD, LayerState(inputs[:, 1 - _KERNEL :], memory[:, -1])
