"""How fast F forgets: what a token leaves of the distance between two contexts.

Shapes: B sequences, T tokens, C = context_dim, E = embed_dim.
"""

import torch
from torch import Tensor

from models.ranks import mean_over_ranks
from models.sweeps import Network, shift_right

EVERY = 16
"""Positions from one that is measured to the next."""

_EQUAL = 1e-4
"""Mean square distance up to which contexts count as equal, of a mean square of 1: what F makes of
them differs by rounding alone, and divided by the distance it would have any size. All contexts are
equal in the first sweep, and products of another shape round differently."""
_SLOWEST = 0.95
"""Contraction above which what lasts is continued by its tangent: at 1 the series diverges, and F
may well start there."""


def contraction(
    network: Network,
    contexts_BTC: Tensor,
    embeddings_BTE: Tensor,
    swept_BTC: Tensor,
    *,
    every: int = EVERY,
) -> Tensor:
    """Share of the square distance between two contexts that is left when both read one token.

    Each context is compared with one half a text away. Below 1 F contracts, and parallel solving
    pays: a sweep leaves the same share of an error. The gradient flows to F. Of several processes
    that train together, it is the share over all of their contexts.

    Args:
        network: F.
        contexts_BTC: (B, T, C), which the tokens to their right read.
        embeddings_BTE: (B, T, E), the tokens.
        swept_BTC: (B, T, C), what F makes of both, as `sweep` returns it.
        every: positions from one that is measured to the next, or fewer so that a text has two; each
            costs an application of F.

    Returns:
        A scalar, 0 or more; 0 where all contexts are equal.
    """
    every = max(1, min(every, contexts_BTC.shape[1] // 2))
    previous_BTC = shift_right(contexts_BTC)[:, every - 1 :: every]
    embeddings_BTE = embeddings_BTE[:, every - 1 :: every]
    others_BTC = previous_BTC.roll(previous_BTC.shape[1] // 2, dims=1)
    difference = swept_BTC[:, every - 1 :: every] - network(others_BTC, embeddings_BTE)
    after = mean_over_ranks(difference.square().mean())
    before = mean_over_ranks((previous_BTC - others_BTC).square().mean())
    return torch.where(before > _EQUAL, after / before.clamp_min(_EQUAL), 0.0)


def lasting_disturbance(contraction: Tensor) -> Tensor:
    """What a disturbance of one context is worth in all later ones: `r + r² + … = r / (1 - r)`.

    In units of the disturbance's square. Of a contraction r of 0.95 it is 19 tokens; from there on
    the tangent, which is finite for an F that does not contract.
    """
    below = contraction.clamp_max(_SLOWEST)
    slope = 1 / (1 - _SLOWEST) ** 2
    return below / (1 - below) + slope * (contraction - below)
