"""The sweep: `G(c)_t = F(c_{t-1}, e_t)` for all positions at once, with `c_0` given.

Shapes: B sequences, T tokens, C = context_dim, E = embed_dim.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from models.linear_recurrence import rotated_decayed_sum


class Network(Protocol):
    """F: (..., C) contexts and (..., E) embeddings to (..., C) contexts."""

    context_dim: int

    def __call__(self, contexts: Tensor, embeddings: Tensor, /) -> Tensor: ...


@runtime_checkable
class LinearMemory(Protocol):
    """A network whose Jacobian by the context is about `keep` times a rotation by one place."""

    def keep(self, embeddings: Tensor, /) -> Tensor: ...


def sweep(
    network: Network, contexts_BTC: Tensor, embeddings_BTE: Tensor, initial_BC: Tensor | None = None
) -> Tensor:
    """Applies G once: every position is updated from its left neighbour's old context.

    Args:
        network: F.
        contexts_BTC: (B, T, C), the contexts before the sweep.
        embeddings_BTE: (B, T, E).
        initial_BC: (B, C), the context left of the first position; zeros where None.

    Returns:
        (B, T, C), the contexts after the sweep.
    """
    previous_BTC = shift_right(contexts_BTC, initial_BC)
    return network(previous_BTC, embeddings_BTE)


def shift_right(contexts_BTC: Tensor, initial_BC: Tensor | None = None) -> Tensor:
    """The context that each position reads, (B, T, C): `initial`, then all but the last."""
    if initial_BC is None:
        initial_BC = torch.zeros_like(contexts_BTC[:, 0])
    return torch.cat([initial_BC.unsqueeze(1), contexts_BTC[:, :-1]], dim=1)


@torch.no_grad()
def quasi_newton_step(
    network: Network, contexts_BTC: Tensor, swept_BTC: Tensor, embeddings_BTE: Tensor
) -> Tensor:
    """The contexts (B, T, C) after a sweep, corrected for what the sweep left of its own changes.

    A sweep alone hands each change to the right neighbour only; where the network says how much
    of it `keep`s, the change is handed to all positions at once (Newton's method on `c = G(c)`
    with the linear part of the Jacobian; DEER arXiv 2309.12252, quasi-DEER arXiv 2407.19115). The
    fixed point is the same, and after k steps the first k positions are exact. A network that
    does not say gets the sweep as it is.
    """
    if not isinstance(network, LinearMemory):
        return swept_BTC
    keep_BT = network.keep(embeddings_BTE)
    change_BTC = rotated_decayed_sum(keep_BT, swept_BTC - contexts_BTC)
    return _with_moments_of(swept_BTC, contexts_BTC + change_BTC)


def carry_gradient(
    network: Network, contexts_BTC: Tensor, swept_BTC: Tensor, embeddings_BTE: Tensor
) -> Tensor:
    """A solution (B, T, C), swept once, whose gradient also reaches what was written long before.

    A sweep's gradient goes back one token: contexts before it are given. Where the network says how
    much of a context it `keep`s, the gradient is handed back over the whole text, as
    `quasi_newton_step` hands changes on: the implicit gradient of the fixed point with the linear part
    of the Jacobian (Bai et al., arXiv 1909.01377; inexact: Geng et al., arXiv 2111.05177). Values
    are those of `contexts_BTC`, up to what is left of its residual. A network that does not say gets
    the sweep as it is.

    Args:
        network: F.
        contexts_BTC: (B, T, C), solved; no gradient flows to it.
        swept_BTC: (B, T, C), after a sweep of it.
        embeddings_BTE: (B, T, E).
    """
    if not isinstance(network, LinearMemory):
        return swept_BTC
    keep_BT = network.keep(embeddings_BTE).detach()
    contexts_BTC = contexts_BTC.detach()
    return contexts_BTC + rotated_decayed_sum(keep_BT, swept_BTC - contexts_BTC)


def _with_moments_of(swept_BTC: Tensor, corrected_BTC: Tensor) -> Tensor:
    """The corrected contexts with each position's mean and length as F has just made them.

    F normalises: it answers neither a shift of all entries nor a scaling, which `keep` would hand
    on to all positions. Left in, they grow from rounding errors to the size of the contexts within
    ten sweeps where memory is long. At the fixed point nothing changes.
    """
    mean = corrected_BTC.mean(dim=-1, keepdim=True) - swept_BTC.mean(dim=-1, keepdim=True)
    centred_BTC = corrected_BTC - mean
    swept_length = torch.linalg.vector_norm(swept_BTC, dim=-1, keepdim=True)
    length = torch.linalg.vector_norm(centred_BTC, dim=-1, keepdim=True).clamp_min(1e-12)
    restored_BTC: Tensor = centred_BTC * (swept_length / length)
    return restored_BTC


def residuals(contexts_BTC: Tensor, swept_BTC: Tensor) -> Tensor:
    """Mean square change of each position in a sweep, (B, T): `mean over C of (G(c) - c)²`."""
    return (swept_BTC - contexts_BTC).square().mean(dim=-1)
