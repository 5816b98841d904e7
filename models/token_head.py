"""The token head: context and current token -> logits of the next token.

Shapes: V = vocab_size, C = context_dim, D = head_embed_dim, H = head_hidden_dim, `...` any
leading dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EMBEDDING_STD = 0.02
"""As output weights, embeddings start small; as inputs, they are scaled back to unit variance."""

_UPDATE_STD = 1e-3
"""The hidden layer starts almost without a say, yet gets a gradient from the first step."""


class TokenHead(nn.Module):
    """One hidden layer over [context; token] with an embedding of its own, tied to the output.

    `logits = LayerNorm(x + U dropout(gelu(W [c; x] + b))) Xᵀ + bias`, x a row of X, (V, D).
    U starts near 0, and the bias at the tokens' log frequencies in the training text, which no
    step is then spent on. Tying: Press and Wolf, arXiv 1608.05859.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        context_dim: int,
        embed_dim: int,
        hidden_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        nn.init.normal_(self.embedding.weight, std=_EMBEDDING_STD)
        self.hidden = nn.Linear(context_dim + embed_dim, hidden_dim)
        self.update = nn.Linear(hidden_dim, embed_dim)
        nn.init.normal_(self.update.weight, std=_UPDATE_STD)
        nn.init.zeros_(self.update.bias)
        self.norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.output_bias = nn.Parameter(torch.zeros(vocab_size))

    def set_unigram(self, token_counts_V: Tensor) -> None:
        """Sets the output bias to log frequencies, each count raised by one; counts are (V,)."""
        frequencies = (token_counts_V.float() + 1) / (token_counts_V.sum() + len(token_counts_V))
        with torch.no_grad():
            self.output_bias.copy_(frequencies.log())

    def features(self, contexts: Tensor, tokens: Tensor) -> Tensor:
        """(..., C) contexts and (...) token ids to what the output layer reads, (..., D)."""
        embeddings = self.dropout(self.embedding(tokens) / _EMBEDDING_STD)
        inputs = torch.cat([contexts, embeddings], dim=-1)
        hidden = F.gelu(self.hidden(inputs))
        features: Tensor = self.norm(embeddings + self.update(self.dropout(hidden)))
        return F.dropout(features, self.dropout.p, self.training)

    def forward(self, contexts: Tensor, tokens: Tensor) -> Tensor:
        """(..., C) contexts that have read the (...) tokens, to logits (..., V)."""
        return F.linear(self.features(contexts, tokens), self.embedding.weight, self.output_bias)
