"""The token head: context and current token -> logits of the next token.

Shapes: V = vocab_size, C = context_dim, D = head_embed_dim, H = head_hidden_dim, `...` any
leading dimensions; with a `Recall` (B, T), sequences and positions, S before them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import AttentionBlock
from models.block import Block, BlockStack, Stacked
from models.copying import Copying
from models.linear_cross_entropy import linear_cross_entropy, mean_over_rows
from models.recurrence import RecurrentBlock
from models.short_convolution import ShortConvolution

EMBEDDING_STD = 0.02
"""As output weights, embeddings start small; as inputs, they are scaled back to unit variance."""

_UPDATE_STD = 1e-3
"""The hidden layer starts almost without a say, yet gets a gradient from the first step."""


class Recall(NamedTuple):
    """What a head goes back to of the text; with nothing, the context is all that it knows of it.

    copy_window: last tokens that `Copying` gives a part of the probability to; 0 copies none.
    attention_window: last positions, the current one among them, that an `AttentionBlock` attends
        to; 0 has none.
    attention_layers: such blocks, one on top of the other.
    kernel: last positions, the current one among them, that a `ShortConvolution` mixes of the head's
        embeddings, and of what each block's feed-forward layer reads; 0 has none.
    query_key_norm, feed_forward_factor: as `AttentionBlock` takes them.
    recurrent_layers: `RecurrentBlock`s, which remember all of the text; they and those of attention
        take turns, beginning with one of these.
    """

    copy_window: int = 0
    attention_window: int = 0
    attention_layers: int = 1
    kernel: int = 0
    query_key_norm: bool = False
    feed_forward_factor: int = 2
    recurrent_layers: int = 0

    @property
    def num_attending(self) -> int:
        """Blocks of attention; without a window there are none."""
        return self.attention_layers if self.attention_window > 0 else 0


class TokenHead(nn.Module):
    """One hidden layer over [context; token] with an embedding of its own, tied to the output.

    `logits = trust_x LayerNorm(x + U dropout(gelu(W [s c; x] + b))) Xᵀ + bias`, x a row of X,
    (V, D), with a kernel mixed with the rows before it; blocks of attention or recurrence, a
    `BlockStack`, stand before the LayerNorm. U starts near 0, and the
    bias at the tokens' log frequencies in the training text, which no step is then spent on. Tying:
    Press and Wolf, arXiv 1608.05859.

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
        recall: what the head goes back to of the text, beside the context.
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
        recall: Recall = Recall(),  # noqa: B008  # immutable
    ) -> None:
        super().__init__()
        self.context_scale = context_scale
        self.prior_count = prior_count
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        self.convolution = ShortConvolution(width=embed_dim, kernel=recall.kernel)
        self.hidden = nn.Linear(context_dim + embed_dim, hidden_dim)
        self.update = nn.Linear(hidden_dim, embed_dim)
        nn.init.normal_(self.update.weight, std=_UPDATE_STD)
        nn.init.zeros_(self.update.bias)
        self.norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.output_bias = nn.Parameter(torch.zeros(vocab_size))
        self.register_buffer("trust", torch.ones(vocab_size))
        self.attention = BlockStack(_blocks(recall, embed_dim, dropout))
        self.copying: Copying | None = None
        if recall.copy_window > 0:
            self.copying = Copying(feature_dim=embed_dim, window=recall.copy_window)

    @property
    def num_recent(self) -> int:
        """Tokens of the text that the head reads: the current one, and those that it copies from or
        mixes with it."""
        num_copied = 0 if self.copying is None else self.copying.window
        return 1 + max(num_copied, self.convolution.num_earlier)

    @property
    def reach(self) -> int:
        """Positions before it that what `read` makes of a position depends on."""
        return self.convolution.num_earlier + self.attention.reach

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

    def read(
        self,
        contexts: Tensor,
        tokens: Tensor,
        earlier: Sequence[Any] | None = None,
        first: int = 0,
        tokens_before: Tensor | None = None,
    ) -> Stacked:
        """Contexts and the tokens they have read last, to what is made of each, (..., D).

        Args:
            contexts: (..., C); with blocks or a kernel (B, T, C).
            tokens: (...) ids; with blocks or a kernel (B, T).
            earlier: as `BlockStack` takes it.
            first: place of the first token in the text.
            tokens_before: (B, S) ids of what stands before; none where None.
        """
        embeddings = self.dropout(self._embed(tokens))
        embeddings_before = None
        if tokens_before is not None and self.convolution.num_earlier > 0:
            embeddings_before = self._embed(tokens_before[:, -self.convolution.num_earlier :])
        embeddings = self.convolution(embeddings, embeddings_before)
        inputs = torch.cat([self.context_scale * contexts, embeddings], dim=-1)
        hidden = F.gelu(self.hidden(inputs))
        features = embeddings + self.update(self.dropout(hidden))
        stacked: Stacked = self.attention(features, earlier, first)
        return stacked

    def features(self, read: Tensor, tokens: Tensor) -> Tensor:
        """What `read` made of (...) tokens, (..., D), to what the output layer reads, (..., D)."""
        features = self.norm(read) * self.trust[tokens].unsqueeze(-1)
        return F.dropout(features, self.dropout.p, self.training)

    def forward(self, contexts: Tensor, tokens: Tensor) -> Tensor:
        """(..., C) contexts that have read the (...) tokens, to logits (..., V).

        Args:
            contexts: (..., C); with a `Recall` (B, T, C), from a text's start on.
            tokens: (...) ids; with a `Recall` (B, T).
        """
        return self.logits(self.read(contexts, tokens).output, tokens)

    def logits(self, read: Tensor, tokens: Tensor, earlier: Tensor | None = None) -> Tensor:
        """What `read` made of (...) tokens to logits (..., V) of the next ones.

        Args:
            read: (..., D); with copying (B, T, D).
            tokens: (...) ids; with copying (B, T).
            earlier: (B, S) ids of what stands before them; none where None.
        """
        features = self.features(read, tokens)
        logits = self._own_logits(features)
        if self.copying is None:
            return logits
        log_probabilities: Tensor = self.copying(features, tokens, earlier).added_to(logits)
        return log_probabilities

    def loss(self, contexts: Tensor, tokens: Tensor, next_tokens: Tensor) -> Tensor:
        """Mean nats a token of (...) next tokens, without all logits in memory at once."""
        return self.smoothed_loss(contexts, tokens, next_tokens, label_smoothing=0.0)[1]

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
        features = self.features(self.read(contexts, tokens).output, tokens)
        nats = self._mean_nats(features, tokens, next_tokens)
        if label_smoothing == 0:
            return nats, nats
        # The normaliser is that of all logits: what is smoothed is how far the answer stands out.
        # What is copied is left out: it is not learnt by heart.
        weight, bias = self.embedding.weight, self.output_bias
        answers = weight[next_tokens] - weight.mean(dim=0)
        margins = (features * answers).sum(dim=-1) + bias[next_tokens] - bias.mean()
        return nats + label_smoothing * margins.mean(), nats

    def _mean_nats(self, features: Tensor, tokens: Tensor, next_tokens: Tensor) -> Tensor:
        if self.copying is None:
            return linear_cross_entropy(
                features.flatten(0, -2),
                self.embedding.weight,
                self.output_bias,
                next_tokens.flatten(),
            )
        vocab_size = len(self.output_bias)
        return mean_over_rows(self._copying_nats, features, tokens, next_tokens, vocab_size)

    def _copying_nats(self, features_BTD: Tensor, tokens_BT: Tensor, next_BT: Tensor) -> Tensor:
        assert self.copying is not None
        logits_BTV = self._own_logits(features_BTD)
        own_nats = F.cross_entropy(logits_BTV.flatten(0, 1), next_BT.flatten(), reduction="none")
        copied = self.copying(features_BTD, tokens_BT)
        total: Tensor = copied.answer_nats(own_nats.view_as(next_BT), next_BT).sum()
        return total

    def _embed(self, tokens: Tensor) -> Tensor:
        embeddings: Tensor = self.embedding(tokens)
        return embeddings / EMBEDDING_STD

    def _own_logits(self, features: Tensor) -> Tensor:
        return F.linear(features, self.embedding.weight, self.output_bias)


def _blocks(recall: Recall, width: int, dropout: float) -> Iterator[Block]:
    """Recurrences and attention in turns, as long as there are both."""
    for index in range(max(recall.recurrent_layers, recall.num_attending)):
        if index < recall.recurrent_layers:
            yield RecurrentBlock(
                width=width,
                dropout=dropout,
                feed_forward_factor=recall.feed_forward_factor,
                kernel=recall.kernel,
            )
        if index < recall.num_attending:
            yield AttentionBlock(
                width=width,
                window=recall.attention_window,
                dropout=dropout,
                feed_forward_factor=recall.feed_forward_factor,
                kernel=recall.kernel,
                query_key_norm=recall.query_key_norm,
            )
