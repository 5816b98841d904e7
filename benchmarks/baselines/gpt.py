"""A small GPT: pre-norm transformer with rotary positions (Su et al., arXiv 2104.09864).

Shapes: B sequences, T tokens, D = width, H = heads, S = positions that are kept, V = vocabulary.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.baselines.tied_embedding import FeedForward, TiedEmbedding
from models.attention import rotated, rotation_of, visible

NUM_LAYERS = 4
NUM_HEADS = 4


class State(NamedTuple):
    """What has been read: a layer's keys and values (B, H, S, D / H), and how many tokens in all.

    S is below the window: what is further back is forgotten.
    """

    keys_values: list[tuple[Tensor, Tensor]]
    num_tokens: int


class GPT(nn.Module):
    """Blocks of attention and a feed-forward layer, between tied embeddings.

    A token sees itself and the `window - 1` before it; in training that is its whole row.

    Args:
        vocab_size: V.
        width: D, a multiple of 4.
        dropout: of embeddings, attention weights, what a block adds, and what the output reads.
        window: positions that attention reaches over.
    """

    def __init__(self, *, vocab_size: int, width: int, dropout: float, window: int) -> None:
        super().__init__()
        self.window = window
        self.embedding = TiedEmbedding(vocab_size, width)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(NUM_LAYERS))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Token ids (B, T) to logits (B, T, V) of the token after each."""
        return self.embedding.logits(self.read(tokens_BT, None)[0])

    def step(self, tokens_B: Tensor, state: State | None) -> tuple[Tensor, State]:
        """One token a row: logits (B, V), and the state, which grows up to the window."""
        features, state = self.read(tokens_B.unsqueeze(1), state)
        return self.embedding.logits(features.squeeze(1)), state

    def read(self, tokens_BT: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Features (B, T, D) that have read each token, and the state after the last."""
        num_new = tokens_BT.shape[1]
        num_kept = 0 if state is None else state.keys_values[0][0].shape[2]
        num_before = 0 if state is None else state.num_tokens
        positions = torch.arange(num_before, num_before + num_new, device=tokens_BT.device)
        rotation = rotation_of(positions, self.embedding.weight.shape[1] // NUM_HEADS)
        mask = None
        if num_kept > 0 or num_new > self.window:
            mask = visible(num_new, num_kept, self.window, tokens_BT.device)
        hidden = self.dropout(self.embedding(tokens_BT))
        after = []
        for index, block in enumerate(self.blocks):
            before = None if state is None else state.keys_values[index]
            hidden, (keys, values) = block(hidden, rotation, before, mask)
            first = max(0, keys.shape[2] - self.window + 1)
            after.append((keys[:, :, first:], values[:, :, first:]))
        return self.dropout(self.norm(hidden)), State(after, num_before + num_new)


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.projection = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.projection.weight, std=0.02)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        hidden_BTD: Tensor,
        rotation: Tensor,
        before: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        heads = self.query_key_value(self.attention_norm(hidden_BTD)).chunk(3, dim=-1)
        # (B, T, D) to (B, H, T, D / H)
        query, key, value = (x.unflatten(-1, (NUM_HEADS, -1)).transpose(1, 2) for x in heads)
        query, key = rotated(query, rotation), rotated(key, rotation)
        if before is not None:
            key, value = torch.cat([before[0], key], dim=2), torch.cat([before[1], value], dim=2)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=mask is None,
        )
        hidden_BTD = hidden_BTD + self.dropout(self.projection(attended.transpose(1, 2).flatten(2)))
        hidden_BTD = hidden_BTD + self.feed_forward(self.feed_forward_norm(hidden_BTD))
        return hidden_BTD, (key, value)
