"""The solution of `c = G(c)`: the trajectory of the context network over a text.

`G(c)_t = F(c_{t-1}, e_t)` with `c_0` given updates all positions at once. Its one fixed point is
the trajectory computed token by token; after k sweeps the first k positions are exact.

Shapes: B sequences, T tokens, C = context_dim, E = embed_dim.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from models.scan import scan
from models.solver_cost import plan
from models.sweeps import LinearMemory, Network, carry_gradient, sweep
from models.windows import Outcome, rounding_unit, solve_by_windows

Method = Literal["auto", "scan", "sweeps", "blocks", "quasi_newton"]

_BLOCK = 256
"""Positions of a window where `blocks` is asked for by name."""


class FixedPointResult(NamedTuple):
    """What `solve` found.

    contexts: (B, T, C).
    residual_trace: mean residual of the contexts before each application of F, the one that only
        confirmed the result included; over the window where it moves. Empty where all was scanned.
    num_sweeps: updates of a position, the average over positions rounded up; 0 for a scan.
    converged: whether every position is within the tolerance; what a scan gives always is, unless
        it is not finite.
    method: the method that was used; `scan` where `auto` gave up sweeping and ended with one.
    outcome: why it ended. `amplified_rounding`: every position is exact but for rounding errors,
        which F amplifies beyond the tolerance.
    """

    contexts: Tensor
    residual_trace: Tensor
    num_sweeps: int
    converged: bool
    method: Literal["scan", "sweeps", "blocks", "quasi_newton"]
    outcome: Outcome


def solve(
    network: Network,
    embeddings: Tensor,
    *,
    tolerance: float,
    max_sweeps: int,
    method: Method = "auto",
    initial: Tensor | None = None,
    num_gradient_sweeps: int = 0,
    carry: bool = False,
) -> FixedPointResult:
    """Computes the contexts of a text.

    `scan` goes token by token and is exact; it costs the arithmetic of a single sweep, in T small
    matrix products. `sweeps` updates all positions at once until all have settled (Jacobi
    iteration; Song et al., arXiv 2002.03629); it is exact after T sweeps. `quasi_newton` adds
    `quasi_newton_step` to each sweep: far fewer sweeps where the network has a linear memory, the
    same as `sweeps` where it has none. `blocks` does so in a window that moves on as its left end
    settles: the least memory, and no work on what has settled. `auto` takes what
    `models.solver_cost` expects to be quickest, and ends with a scan where F does not contract.

    Contexts that have not converged are the best that a sweep gave, by the largest residual; which
    sweep's they are depends on the whole text, so that only what has converged is causal.

    Args:
        network: F.
        embeddings: (B, T, E), B and T at least 1.
        tolerance: mean square distance from the trajectory that is allowed; positive. Below the
            square of the arithmetic's rounding nothing but a scan can end converged.
        max_sweeps: bound on the number of sweeps; 1 or more.
        method: see above.
        initial: (B, C), the context left of the first position; zeros where None.
        num_gradient_sweeps: sweeps that are added to the solution and carry gradients to F, to
            the embeddings and to `initial`; with 0 no gradient is built.
        carry: as `with_gradient` takes it.

    Raises:
        ValueError: `max_sweeps`, `tolerance` or `num_gradient_sweeps` is out of its range, the
            method is unknown, or the text is empty.
    """
    _check(embeddings, tolerance, max_sweeps, method, num_gradient_sweeps)
    shape = (len(embeddings), network.context_dim)
    if initial is None:
        initial = embeddings.new_zeros(shape)
    if initial.shape != shape:
        raise ValueError(f"initial of shape {tuple(initial.shape)} must have {shape}")
    with torch.no_grad():
        result = _solve(network, embeddings, initial, tolerance, max_sweeps, method)
    if num_gradient_sweeps == 0:
        return result
    contexts = with_gradient(
        network, result.contexts, embeddings, initial, num_sweeps=num_gradient_sweeps, carry=carry
    )
    return result._replace(contexts=contexts)


def with_gradient(
    network: Network,
    contexts: Tensor,
    embeddings: Tensor,
    initial: Tensor | None = None,
    *,
    num_sweeps: int,
    carry: bool,
) -> Tensor:
    """A solution (B, T, C), swept so that gradients reach F, the embeddings and `initial`.

    Args:
        network: F.
        contexts: (B, T, C), solved.
        embeddings: (B, T, E).
        initial: (B, C), the context left of the first position; zeros where None.
        num_sweeps: 1 or more.
        carry: hand the gradient that the first of them is given on over the whole text; see
            `models.sweeps.carry_gradient`. Each sweep after it then makes the gradient of one token
            more exact. (Carried from the last, what the others hand back would count once for each.)
    """
    swept = sweep(network, contexts, embeddings, initial)
    contexts = carry_gradient(network, contexts, swept, embeddings) if carry else swept
    for _ in range(num_sweeps - 1):
        contexts = sweep(network, contexts, embeddings, initial)
    return contexts


def solve_rows(network: Network, embeddings_BTE: Tensor) -> Tensor:
    """The contexts (B, T, C) of texts that start from nothing, as exact as is useful."""
    return solve(
        network,
        embeddings_BTE,
        tolerance=useful_tolerance(embeddings_BTE),
        max_sweeps=embeddings_BTE.shape[1],
    ).contexts


def useful_tolerance(embeddings: Tensor) -> float:
    """Mean square distance that is as good as none: root mean square 1e-4, or where the arithmetic is
    less precise what it allows. Below its rounding only a scan would end converged."""
    return max(1e-8, (8 * rounding_unit(embeddings)) ** 2)


def solve_chunks(
    network: Network,
    chunks: Iterable[Tensor],
    *,
    tolerance: float,
    max_sweeps: int,
    method: Method = "auto",
    initial: Tensor | None = None,
) -> Iterator[FixedPointResult]:
    """Works through a text of any length with the memory of one chunk.

    Args:
        network: F.
        chunks: embeddings (B, T_i, E) of the text's parts in order, the same B in each.
        tolerance: as `solve` takes it.
        max_sweeps: of a chunk.
        method: as `solve` takes it.
        initial: (B, C), the context left of the first part; zeros where None.

    Yields:
        Each part's result, which goes on from the one before.

    Raises:
        ValueError: as `solve`.
    """
    for embeddings in chunks:
        result = solve(
            network,
            embeddings,
            tolerance=tolerance,
            max_sweeps=max_sweeps,
            method=method,
            initial=initial,
        )
        yield result
        # A copy: a view would keep the whole chunk.
        initial = result.contexts[:, -1].clone()


def _check(
    embeddings: Tensor, tolerance: float, max_sweeps: int, method: str, num_gradient_sweeps: int
) -> None:
    if method not in get_args(Method):
        raise ValueError(f"method={method!r} must be one of {', '.join(get_args(Method))}")
    if max_sweeps < 1 or not tolerance > 0:
        raise ValueError(f"max_sweeps={max_sweeps} must be >= 1 and tolerance={tolerance} > 0")
    if num_gradient_sweeps < 0:
        raise ValueError(f"num_gradient_sweeps={num_gradient_sweeps} must be >= 0")
    if embeddings.ndim != 3 or 0 in embeddings.shape[:2]:
        raise ValueError(f"embeddings of shape {tuple(embeddings.shape)} hold no position")


def _solve(
    network: Network,
    embeddings_BTE: Tensor,
    initial_BC: Tensor,
    tolerance: float,
    max_sweeps: int,
    method: Method,
) -> FixedPointResult:
    num_rows, num_positions, _ = embeddings_BTE.shape
    window, patience = num_positions, 0.0
    correct = method != "sweeps" and isinstance(network, LinearMemory)
    if method == "auto":
        device = embeddings_BTE.device.type
        choice = plan(network, network.context_dim, num_rows, num_positions, device)
        window, patience, correct = choice.window, choice.window_cost, choice.correct
    elif method == "blocks":
        window = _BLOCK
    if method == "scan" or window == 0:
        return _scanned(network, embeddings_BTE, initial_BC)
    found = solve_by_windows(
        network,
        embeddings_BTE,
        initial_BC,
        tolerance=tolerance,
        max_sweeps=max_sweeps,
        window=window,
        correct=correct,
        patience=patience,
    )
    num_sweeps = -(-found.num_updates // num_positions)
    if method == "auto" and found.outcome not in ("converged", "non_finite"):
        # From the start: where F amplifies rounding errors, what has settled is not to be built on.
        scanned = _scanned(network, embeddings_BTE, initial_BC)
        return scanned._replace(residual_trace=found.residual_trace, num_sweeps=num_sweeps)
    whole: Literal["sweeps", "quasi_newton"] = "quasi_newton" if correct else "sweeps"
    return FixedPointResult(
        found.contexts,
        found.residual_trace,
        num_sweeps,
        found.outcome == "converged",
        "blocks" if window < num_positions else whole,
        found.outcome,
    )


def _scanned(network: Network, embeddings_BTE: Tensor, initial_BC: Tensor) -> FixedPointResult:
    contexts_BTC = scan(network, embeddings_BTE, initial_BC)
    is_finite = bool(contexts_BTC.isfinite().all())
    outcome: Outcome = "converged" if is_finite else "non_finite"
    return FixedPointResult(
        contexts_BTC, embeddings_BTE.new_zeros(0), 0, is_finite, "scan", outcome
    )
