"""The context network F: (context, token embedding) -> context.

Shapes: B sequences, T tokens, C = context_dim, E = embed_dim, `...` any leading dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ContextLayer(nn.Module):
    """One residual layer: `h = relu(W [c; e] + b)`, split in two, added and normalised.

    W is kept as two blocks of columns, one a context and one a token, so that [c; e] is never
    put together in memory. The last layer of a network updates the context alone.
    """

    def __init__(
        self, *, context_dim: int, embed_dim: int, update_scale: float, is_last: bool
    ) -> None:
        super().__init__()
        num_inputs = context_dim + embed_dim
        num_outputs = context_dim if is_last else num_inputs
        self.context_weight = nn.Parameter(torch.empty(num_outputs, context_dim))
        self.token_weight = nn.Parameter(torch.empty(num_outputs, embed_dim))
        self.bias = nn.Parameter(torch.zeros(num_outputs))
        self.split_sizes = [context_dim, num_outputs - context_dim]
        self.update_scale = update_scale
        bound = (3.0 / num_inputs) ** 0.5
        nn.init.uniform_(self.context_weight, -bound, bound)
        nn.init.uniform_(self.token_weight, -bound, bound)

    def forward(self, contexts: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (..., C) and (..., E) to the same shapes."""
        hidden = F.linear(contexts, self.context_weight)
        hidden = F.relu(hidden + F.linear(embeddings, self.token_weight, self.bias))
        context_update, token_update = torch.split(hidden, self.split_sizes, dim=-1)
        contexts = normalise(contexts + self.update_scale * context_update)
        if token_update.shape[-1] == 0:
            return contexts, embeddings
        return contexts, normalise(embeddings + token_update)


class ContextNetwork(nn.Module):
    """Reads a token and updates the context; nothing else carries history.

    LayerNorms have no gain or bias: with them the residual could be made small by shrinking every
    context instead of reaching a fixed point.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        context_dim: int,
        embed_dim: int,
        num_layers: int,
        update_scale: float,
    ) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.layers = nn.ModuleList(
            ContextLayer(
                context_dim=context_dim,
                embed_dim=embed_dim,
                update_scale=update_scale,
                is_last=index == num_layers - 1,
            )
            for index in range(num_layers)
        )

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeds token ids: (...) integers to (..., E), normalised."""
        return normalise(self.embedding(tokens))

    def forward(self, contexts: Tensor, embeddings: Tensor) -> Tensor:
        """Maps contexts (..., C) and embeddings (..., E) to the next contexts (..., C)."""
        for layer in self.layers:
            contexts, embeddings = layer(contexts, embeddings)
        return contexts


def normalise(vectors: Tensor) -> Tensor:
    """LayerNorm over the last dimension, without gain or bias."""
    return F.layer_norm(vectors, vectors.shape[-1:])
