"""A baseline that may copy from its text, by the same mixture as our own token head.

Shapes: B sequences, T tokens, V = vocabulary.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.baselines.gpt import GPT
from benchmarks.baselines.lstm import LSTM
from benchmarks.baselines.min_gru import MinGRU
from benchmarks.baselines.tied_embedding import TiedEmbedding
from models.copying import Copying


class State(NamedTuple):
    """model: the baseline's own state. recent: the last tokens, (B, window + 1) at most."""

    model: Any
    recent: Tensor


class WithCopying(nn.Module):
    """LSTM, GPT or minGRU whose distribution is mixed with tokens of the text.

    Args:
        model: that gives features and its own logits.
        window: tokens to copy from.
    """

    def __init__(self, model: LSTM | GPT | MinGRU, window: int) -> None:
        super().__init__()
        self.model = model
        self.copying = Copying(feature_dim=model.embedding.weight.shape[1], window=window)

    @property
    def embedding(self) -> TiedEmbedding:
        return self.model.embedding

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Token ids (B, T) to log probabilities (B, T, V) of the token after each."""
        return self.own_and_mixed(tokens_BT)[1]

    def own_and_mixed(self, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The model's own logits and the mixture's log probabilities, (B, T, V) each."""
        features, _ = self.model.read(tokens_BT, None)
        logits = self.embedding.logits(features)
        return logits, self.copying(features, tokens_BT).added_to(logits)

    def read(self, tokens_BT: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Features (B, T, D) that have read each token, and the state after the last."""
        before, recent_BR = (None, tokens_BT[:, :0]) if state is None else state
        features, after = self.model.read(tokens_BT, before)
        recent_BR = torch.cat([recent_BR, tokens_BT], dim=1)[:, -self.copying.window - 1 :]
        return features, State(after, recent_BR)

    def step(self, tokens_B: Tensor, state: State | None) -> tuple[Tensor, State]:
        """One token a row: log probabilities (B, V), and the state."""
        features, state = self.read(tokens_B.unsqueeze(1), state)
        earlier_BS, token_B1 = state.recent[:, :-1], state.recent[:, -1:]
        copied = self.copying(features, token_B1, earlier_BS)
        return copied.added_to(self.embedding.logits(features)).squeeze(1), state
