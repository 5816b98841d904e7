"""Contexts of a text, and what solving for them takes."""

import torch
from torch import Tensor

from models.scan import scan
from models.sweeps import Network, quasi_newton_step, residuals, sweep

TOLERANCE = 1e-4
"""Residual below which every position is solved, where sweeps are counted."""
MAX_SWEEPS = 64


@torch.no_grad()
def exact_contexts(network: Network, embeddings_BTE: Tensor) -> Tensor:
    """The contexts (B, T, C) of texts that start from nothing, token by token."""
    initial_BC = embeddings_BTE.new_zeros(len(embeddings_BTE), network.context_dim)
    return scan(network, embeddings_BTE, initial_BC)


@torch.no_grad()
def sweeps_to_tolerance(network: Network, embeddings_BTE: Tensor) -> float:
    """Quasi-Newton sweeps from zeros until the largest residual is below 1e-4; infinite where 64
    do not suffice.

    `models.fixed_point.solve` asks for more: an estimate of the distance from the solution too.
    """
    contexts_BTC = embeddings_BTE.new_zeros(*embeddings_BTE.shape[:2], network.context_dim)
    for num_sweeps in range(1, MAX_SWEEPS + 1):
        swept_BTC = sweep(network, contexts_BTC, embeddings_BTE)
        if residuals(contexts_BTC, swept_BTC).max() < TOLERANCE:
            return num_sweeps
        contexts_BTC = quasi_newton_step(network, contexts_BTC, swept_BTC, embeddings_BTE)
    return float("inf")
