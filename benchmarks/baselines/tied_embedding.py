"""Token embeddings that are the output weights too.

Shapes: D = width, V = vocabulary, `...` any leading dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STD = 0.02
"""As output weights, embeddings start small; as inputs, they are scaled to unit variance."""


class TiedEmbedding(nn.Module):
    """Embeds tokens and turns features into logits with the same (V, D) matrix and a bias.

    Press and Wolf, arXiv 1608.05859.
    """

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, width))
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        nn.init.normal_(self.weight, std=_STD)

    @torch.no_grad()
    def set_token_counts(self, token_counts_V: Tensor) -> None:
        """Starts the bias at log frequencies of counts raised by one, as our own head does."""
        frequencies = (token_counts_V.float() + 1) / (token_counts_V.sum() + len(token_counts_V))
        self.bias.copy_(frequencies.log())

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (...) to (..., D)."""
        return F.embedding(tokens, self.weight) / _STD

    def logits(self, features: Tensor) -> Tensor:
        """Features (..., D) to logits (..., V)."""
        return F.linear(features, self.weight, self.bias)


class FeedForward(nn.Module):
    """Two linear layers, D to 4 D and back; the second starts small."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        nn.init.normal_(self.outer.weight, std=_STD)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.dropout(self.outer(F.gelu(self.inner(features))))
        return result
