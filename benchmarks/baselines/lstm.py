"""LSTM with the regularisation that matters most of AWD-LSTM (Merity et al., arXiv 1708.02182).

Shapes: B sequences, T tokens, D = width, V = vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.baselines.tied_embedding import TiedEmbedding

NUM_LAYERS = 2

State = list[tuple[Tensor, Tensor]]
"""For each layer its hidden and its cell state, (1, B, D) each."""


class LSTM(nn.Module):
    """Layers of width D between tied embeddings; locked dropout before, between and after them.

    Args:
        vocab_size: V.
        width: D.
        dropout: share of the entries that is dropped, the same ones at all positions of a row.
    """

    def __init__(self, *, vocab_size: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.embedding = TiedEmbedding(vocab_size, width)
        self.layers = nn.ModuleList(
            nn.LSTM(width, width, batch_first=True) for _ in range(NUM_LAYERS)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Token ids (B, T) to logits (B, T, V) of the token after each."""
        return self.embedding.logits(self.read(tokens_BT, None)[0])

    def step(self, tokens_B: Tensor, state: State | None) -> tuple[Tensor, State]:
        """One token a row: logits (B, V), and the state, whose size does not grow."""
        features, state = self.read(tokens_B.unsqueeze(1), state)
        return self.embedding.logits(features.squeeze(1)), state

    def read(self, tokens_BT: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Features (B, T, D) that have read each token, and the state after the last."""
        hidden = self._drop(self.embedding(tokens_BT))
        after: State = []
        for index, layer in enumerate(self.layers):
            hidden, layer_state = layer(hidden, None if state is None else state[index])
            after.append(layer_state)
            if index + 1 < len(self.layers):
                hidden = self._drop(hidden)
        return self._drop(self.norm(hidden)), after

    def _drop(self, features_BTD: Tensor) -> Tensor:
        if not self.training or self.dropout == 0:
            return features_BTD
        return features_BTD * F.dropout(torch.ones_like(features_BTD[:, :1]), self.dropout)
