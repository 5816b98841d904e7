"""Sweeps and the solution of `c = G(c)`, the trajectory of the context network over a text.

`G(c)_t = F(c_{t-1}, e_t)` with `c_0` given updates all positions at once. Its one fixed point is
the trajectory computed token by token; after k sweeps the first k positions are exact.

Shapes: B sequences, T tokens, C = context_dim, E = embed_dim.
"""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

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


Method = Literal["auto", "scan", "sweeps", "quasi_newton"]

_MIN_ROWS_FOR_SCAN = 8
"""Sequences from which one matrix product a token keeps a CPU busy."""


class FixedPointResult(NamedTuple):
    """What `solve` found.

    contexts: (B, T, C).
    residual_trace: (num_sweeps,) mean residual of each sweep; empty for `scan`, which is exact.
    num_sweeps: how many sweeps were made; 0 for `scan`.
    converged: whether every position's residual is below the tolerance.
    method: the method that was used.
    """

    contexts: Tensor
    residual_trace: Tensor
    num_sweeps: int
    converged: bool
    method: Literal["scan", "sweeps", "quasi_newton"]


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
    contexts_BTC = contexts_BTC + change_BTC
    # Contexts have a mean square of 1 at most: far from the fixed point a correction may overshoot.
    # At the fixed point nothing is scaled, and it stays one to the last digit.
    mean_square = contexts_BTC.square().mean(dim=-1, keepdim=True)
    return contexts_BTC * mean_square.clamp_min(1).rsqrt()


def residuals(contexts_BTC: Tensor, swept_BTC: Tensor) -> Tensor:
    """Mean square change of each position in a sweep, (B, T): `mean over C of (G(c) - c)²`."""
    return (swept_BTC - contexts_BTC).square().mean(dim=-1)


@torch.no_grad()
def solve(
    network: Network,
    embeddings: Tensor,
    *,
    tolerance: float,
    max_sweeps: int,
    method: Method = "auto",
    initial: Tensor | None = None,
) -> FixedPointResult:
    """Computes the contexts of a text without building a gradient.

    `scan` goes token by token and is exact; it costs the arithmetic of a single sweep, in T small
    matrix products. `sweeps` updates all positions at once until every residual is below the
    tolerance (Jacobi iteration; Song et al., arXiv 2002.03629); it is exact after T sweeps.
    `quasi_newton` adds `quasi_newton_step` to each sweep: far fewer sweeps where the network has a
    linear memory, the same as `sweeps` where it has none.
    `auto` scans on a CPU where there are enough sequences to fill a matrix product, and
    takes `quasi_newton` otherwise.

    Args:
        network: F.
        embeddings: (B, T, E), B and T at least 1.
        tolerance: residual below which a position has converged; positive.
        max_sweeps: bound on the number of sweeps; 1 or more.
        method: see above.
        initial: (B, C), the context left of the first position; zeros where None.

    Raises:
        ValueError: `max_sweeps` or `tolerance` is out of its range, the method is unknown, or the
            text is empty.
    """
    embeddings_BTE = embeddings
    num_rows, num_positions, _ = embeddings_BTE.shape
    if method not in ("auto", "scan", "sweeps", "quasi_newton"):
        raise ValueError(f"method={method!r} must be one of auto, scan, sweeps, quasi_newton")
    if max_sweeps < 1 or not tolerance > 0:
        raise ValueError(f"max_sweeps={max_sweeps} must be >= 1 and tolerance={tolerance} > 0")
    if num_rows == 0 or num_positions == 0:
        raise ValueError(f"embeddings of shape {tuple(embeddings_BTE.shape)} hold no position")
    if initial is None:
        initial = embeddings_BTE.new_zeros(num_rows, network.context_dim)
    if method == "auto":
        on_cpu = embeddings_BTE.device.type == "cpu"
        method = "scan" if on_cpu and num_rows >= _MIN_ROWS_FOR_SCAN else "quasi_newton"
    if method == "quasi_newton" and not isinstance(network, LinearMemory):
        method = "sweeps"
    if method == "scan":
        return _scan(network, embeddings_BTE, initial)
    return _sweep_until(network, embeddings_BTE, initial, tolerance, max_sweeps, method)


def _scan(network: Network, embeddings_BTE: Tensor, initial_BC: Tensor) -> FixedPointResult:
    context_BC = initial_BC
    steps = []
    for embeddings_BE in embeddings_BTE.unbind(dim=1):
        context_BC = network(context_BC, embeddings_BE)
        steps.append(context_BC)
    contexts_BTC = torch.stack(steps, dim=1)
    converged = bool(contexts_BTC.isfinite().all())
    return FixedPointResult(contexts_BTC, embeddings_BTE.new_zeros(0), 0, converged, "scan")


def _sweep_until(
    network: Network,
    embeddings_BTE: Tensor,
    initial_BC: Tensor,
    tolerance: float,
    max_sweeps: int,
    method: Literal["sweeps", "quasi_newton"],
) -> FixedPointResult:
    num_rows, num_positions, _ = embeddings_BTE.shape
    contexts_BTC = embeddings_BTE.new_zeros(num_rows, num_positions, initial_BC.shape[-1])
    trace: list[Tensor] = []
    converged = False
    while not converged and len(trace) < min(max_sweeps, num_positions):
        swept_BTC = sweep(network, contexts_BTC, embeddings_BTE, initial_BC)
        residuals_BT = residuals(contexts_BTC, swept_BTC)
        trace.append(residuals_BT.mean())
        # The comparison waits for the device: one synchronisation a sweep.
        converged = bool(residuals_BT.max() < tolerance)
        if method == "quasi_newton" and not converged:
            swept_BTC = quasi_newton_step(network, contexts_BTC, swept_BTC, embeddings_BTE)
        contexts_BTC = swept_BTC
    exact = len(trace) == num_positions and bool(contexts_BTC.isfinite().all())
    return FixedPointResult(
        contexts_BTC, torch.stack(trace), len(trace), converged or exact, method
    )


def solve_rows(network: Network, embeddings_BTE: Tensor) -> Tensor:
    """The exact contexts (B, T, C) of texts that start from nothing, by whatever method is quick."""
    num_positions = embeddings_BTE.shape[1]
    return solve(network, embeddings_BTE, tolerance=1e-8, max_sweeps=num_positions).contexts
