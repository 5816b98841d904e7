"""The token head: context and current token -> logits of the next token.

Shapes: V = vocab_size, C = context_dim, D = head_embed_dim, H = head_hidden_dim, `...` any
leading dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.linear_cross_entropy import linear_cross_entropy

EMBEDDING_STD = 0.02
"""As output weights, embeddings start small; as inputs, they are scaled back to unit variance."""

_UPDATE_STD = 1e-3
"""The hidden layer starts almost without a say, yet gets a gradient from the first step."""


class TokenHead(nn.Module):
    """One hidden layer over [context; token] with an embedding of its own, tied to the output.

    `logits = trust_x LayerNorm(x + U dropout(gelu(W [s c; x] + b))) Xᵀ + bias`, x a row of X,
    (V, D). U starts near 0, and the bias at the tokens' log frequencies in the training text, which
    no step is then spent on. Tying: Press and Wolf, arXiv 1608.05859.

    `trust_x = n / (n + prior_count)` for a token that the training text has n times: after a token
    that it has hardly seen, the head falls back on the frequencies, as Kneser-Ney smoothing does.

    Args:
        vocab_size: V.
        context_dim: C.
        embed_dim: D.
        hidden_dim: H.
        dropout: share of activations that is dropped in training.
        context_scale: s. Contexts have many more entries than tokens; at full size the head learns
            a small text's contexts by heart before its tokens.
        prior_count: 0 or more; 0 trusts every token alike.
    """

    trust: Tensor

    def __init__(
        self,
        *,
        vocab_size: int,
        context_dim: int,
        embed_dim: int,
        hidden_dim: int,
        dropout: float,
        context_scale: float,
        prior_count: float,
    ) -> None:
        super().__init__()
        self.context_scale = context_scale
        self.prior_count = prior_count
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        self.hidden = nn.Linear(context_dim + embed_dim, hidden_dim)
        self.update = nn.Linear(hidden_dim, embed_dim)
        nn.init.normal_(self.update.weight, std=_UPDATE_STD)
        nn.init.zeros_(self.update.bias)
        self.norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.output_bias = nn.Parameter(torch.zeros(vocab_size))
        self.register_buffer("trust", torch.ones(vocab_size))

    @torch.no_grad()
    def set_token_counts(self, token_counts_V: Tensor) -> None:
        """Sets the trust in tokens, and the output bias to log frequencies of counts raised by one.

        Args:
            token_counts_V: (V,), how often each token stands in the training text.
        """
        frequencies = (token_counts_V.float() + 1) / (token_counts_V.sum() + len(token_counts_V))
        self.output_bias.copy_(frequencies.log())
        if self.prior_count > 0:
            self.trust.copy_(token_counts_V / (token_counts_V + self.prior_count))

    def features(self, contexts: Tensor, tokens: Tensor) -> Tensor:
        """(..., C) contexts and (...) token ids to what the output layer reads, (..., D)."""
        embeddings = self.dropout(self.embedding(tokens) / EMBEDDING_STD)
        inputs = torch.cat([self.context_scale * contexts, embeddings], dim=-1)
        hidden = F.gelu(self.hidden(inputs))
        features = self.norm(embeddings + self.update(self.dropout(hidden)))
        features = features * self.trust[tokens].unsqueeze(-1)
        return F.dropout(features, self.dropout.p, self.training)

    def forward(self, contexts: Tensor, tokens: Tensor) -> Tensor:
        """(..., C) contexts that have read the (...) tokens, to logits (..., V)."""
        return F.linear(self.features(contexts, tokens), self.embedding.weight, self.output_bias)

    def loss(self, contexts: Tensor, tokens: Tensor, next_tokens: Tensor) -> Tensor:
        """Mean nats a token of (...) next tokens, without all logits in memory at once."""
        return self._mean_nats(self.features(contexts, tokens), next_tokens)

    def smoothed_loss(
        self, contexts: Tensor, tokens: Tensor, next_tokens: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy against answers of which a share is spread over all tokens, and `loss`.

        A head that is taught the next token alone learns a small text by heart and leaves all other
        tokens too little. Label smoothing: Szegedy et al., arXiv 1512.00567.

        Args:
            contexts: (..., C).
            tokens: (...) ids that the contexts have read.
            next_tokens: (...) ids.
            label_smoothing: the share, from 0 to 1.

        Returns:
            The loss to train on, and the mean nats a token that are in it.
        """
        features = self.features(contexts, tokens)
        nats = self._mean_nats(features, next_tokens)
        if label_smoothing == 0:
            return nats, nats
        # The normaliser is that of all logits: what is smoothed is how far the answer stands out.
        weight, bias = self.embedding.weight, self.output_bias
        answers = weight[next_tokens] - weight.mean(dim=0)
        margins = (features * answers).sum(dim=-1) + bias[next_tokens] - bias.mean()
        return nats + label_smoothing * margins.mean(), nats

    def _mean_nats(self, features: Tensor, next_tokens: Tensor) -> Tensor:
        return linear_cross_entropy(
            features.flatten(0, -2), self.embedding.weight, self.output_bias, next_tokens.flatten()
        )
