"""A context network with a linear memory: rotation, and a learnt gate that each token brings with it.

Shapes: C = context_dim, E = embed_dim, V = vocabulary, `...` any leading dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.context_network import normalise

_CONTEXT_SHARE = 0.02
"""Share of an update's variance that the context has at first; the token has the rest."""


class GatedLayer(nn.Module):
    """`u = LayerNorm(relu(W [c; e] + b))`, split in two; the context becomes LayerNorm(c + g u).

    g >= 0 is the token's gate. As c and u have variance 1, the layer keeps 1 / sqrt(1 + g²) of a
    context and of a difference between two. The last layer updates the context alone.
    """

    def __init__(self, *, context_dim: int, embed_dim: int, is_last: bool) -> None:
        super().__init__()
        num_outputs = context_dim if is_last else context_dim + embed_dim
        self.context_weight = nn.Parameter(torch.empty(num_outputs, context_dim))
        self.token_weight = nn.Parameter(torch.empty(num_outputs, embed_dim))
        self.bias = nn.Parameter(torch.zeros(num_outputs))
        self.split_sizes = [context_dim, num_outputs - context_dim]
        nn.init.normal_(self.context_weight, std=(_CONTEXT_SHARE / context_dim) ** 0.5)
        nn.init.normal_(self.token_weight, std=((1 - _CONTEXT_SHARE) / embed_dim) ** 0.5)

    def forward(self, contexts: Tensor, tokens: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
        """Maps contexts (..., C), tokens (..., E) and gate (..., 1) to contexts and tokens."""
        hidden = F.linear(contexts, self.context_weight)
        hidden = F.relu(hidden + F.linear(tokens, self.token_weight, self.bias))
        context_update, token_update = torch.split(hidden, self.split_sizes, dim=-1)
        contexts = normalise(contexts + gate * normalise(context_update))
        if token_update.shape[-1] == 0:
            return contexts, tokens
        return contexts, normalise(tokens + token_update)


class GatedContextNetwork(nn.Module):
    """F with a memory that is nearly linear, so that few sweeps find its trajectory.

    Before a token is read the context is rotated (its entries move on by one place), so that what
    a token wrote meets what the same token writes later at other places: without it, frequent
    tokens fill a few directions and effective rank falls.

    The gate of a token of frequency p is `scale · min(1 / (C p), 1) ** gate_damping`, and it
    overwrites the share gate² / (1 + gate²) of the context's variance. The scale is learnt: the more
    is overwritten, the sooner a disturbed context is back on its trajectory; the more tokens a
    context remembers, the more diverse contexts are. With a damping of 1/2 every frequent token has
    about the same part in the contexts' covariance, which is white when all parts are equal; with 0
    all tokens write alike. A gate travels as the length of the token's embedding: |e| = gate sqrt(E).

    Before `set_token_counts` all tokens are as rare as can be, and write alike.

    Args:
        vocab_size: V.
        context_dim: C.
        embed_dim: E.
        num_layers: 1 or more.
        update_scale: the scale at first.
        gate_damping: exponent of a frequent token's rarity, 0 or more.
    """

    log_excess: Tensor

    def __init__(
        self,
        *,
        vocab_size: int,
        context_dim: int,
        embed_dim: int,
        num_layers: int,
        update_scale: float,
        gate_damping: float = 0.25,
    ) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.log_scale = nn.Parameter(torch.tensor(update_scale).log())
        self.gate_damping = gate_damping
        self.register_buffer("log_excess", torch.zeros(vocab_size))
        self.layers = nn.ModuleList(
            GatedLayer(
                context_dim=context_dim, embed_dim=embed_dim, is_last=index == num_layers - 1
            )
            for index in range(num_layers)
        )

    @torch.no_grad()
    def set_token_counts(self, token_counts_V: Tensor) -> None:
        """Tells how rare each token is, from how often it stands in the training text, (V,)."""
        counts = token_counts_V.to(self.log_excess) + 0.25
        frequency = counts / counts.sum()
        self.log_excess.copy_((self.context_dim * frequency).log().clamp(min=0))

    def gates(self) -> Tensor:
        """The gate of each token, (V,)."""
        return (self.log_scale - self.gate_damping * self.log_excess).exp()

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeds token ids: (...) integers to (..., E), each as long as its gate says."""
        return normalise(self.embedding(tokens)) * self.gates()[tokens].unsqueeze(-1)

    def forward(self, contexts: Tensor, embeddings: Tensor) -> Tensor:
        """Maps contexts (..., C) and embeddings (..., E) to the next contexts (..., C)."""
        gate = self._layer_gate(embeddings)
        tokens = normalise(embeddings)
        contexts = contexts.roll(1, dims=-1)
        for layer in self.layers:
            contexts, tokens = layer(contexts, tokens, gate)
        return contexts

    def keep(self, embeddings: Tensor) -> Tensor:
        """Share of a difference between two contexts that a token leaves, (...), from 0 to 1.

        The Jacobian of F is about `keep` times the rotation: what it leaves out is how the update
        itself depends on the context.
        """
        gate: Tensor = self._layer_gate(embeddings).squeeze(-1)
        kept: Tensor = (1 + gate.square()).pow(-0.5 * len(self.layers))
        return kept

    def _layer_gate(self, embeddings: Tensor) -> Tensor:
        # Several layers share what a token may write.
        mean_square = embeddings.square().mean(dim=-1, keepdim=True)
        return (mean_square / len(self.layers)).sqrt()
