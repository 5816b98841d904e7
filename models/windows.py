"""Solving `c = G(c)` by sweeps over a window of positions that moves on as its left end settles.

A window of all positions is the Jacobi iteration; a shorter one is Gauss-Seidel over blocks with
Jacobi inside, which bounds memory and sweeps no position again that has settled.

Shapes: B sequences, T tokens, W positions of a window, C = context_dim, E = embed_dim.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from models.sweeps import Network, quasi_newton_step, residuals, sweep

Outcome = Literal["converged", "max_sweeps", "non_finite", "amplified_rounding", "gave_up"]

_STRIDE_SHARE = 8
"""A window moves on when this part of it has settled: less often, and copies would cost more."""
_TRUSTED_SWEEPS = 64
"""A position that is exact because as many sweeps have passed from its left says nothing about
whether F contracts, and rounding errors may have grown: beyond this number they are looked at."""


class WindowSolution(NamedTuple):
    """What `solve_by_windows` found.

    contexts: (B, T, C); within the tolerance in the first `num_settled` positions.
    residual_trace: mean residual over the window, one for each application of F.
    num_updates: positions that were updated, each counted as often as it was.
    """

    contexts: Tensor
    residual_trace: Tensor
    num_updates: int
    num_settled: int
    outcome: Outcome


def solve_by_windows(
    network: Network,
    embeddings_BTE: Tensor,
    initial_BC: Tensor,
    *,
    tolerance: float,
    max_sweeps: int,
    window: int,
    correct: bool,
    patience: float = 0.0,
) -> WindowSolution:
    """Sweeps until every position has settled.

    A position has settled when its residual, and an estimate of its mean square distance from the
    trajectory, are below the tolerance. G maps the positions up to any t to themselves, so they
    are a fixed-point problem of their own, and Banach's bound holds for each: the error is at most
    M / (1 - q), M the largest change up to t and q its ratio to the sweep before. Where q is 1 or
    more, nothing has settled but the positions that are exact: one more with every sweep.

    Args:
        network: F.
        embeddings_BTE: (B, T, E).
        initial_BC: (B, C), the context left of the first position.
        tolerance: mean square distance.
        max_sweeps: bound on the updates of a position, on the average over positions.
        window: positions that are swept together; T or more sweeps all until all have settled.
        correct: whether `quasi_newton_step` follows each sweep.
        patience: what applying F to a window costs in steps of a scan. Gives up when more has been
            spent than a scan to the settled positions and a window further. 0 never gives up.

    Returns:
        Of the contexts that were looked at, those with the lowest worst change; not always the
        last.
    """
    num_positions = embeddings_BTE.shape[1]
    window = min(window, num_positions)
    state = _Windows(network, embeddings_BTE, initial_BC, window, correct)
    trace: list[Tensor] = []
    num_updates = 0
    outcome: Outcome | None = None
    while outcome is None:
        trace.append(state.look(tolerance))
        if not math.isfinite(state.worst):
            outcome = "non_finite"
        elif state.num_settled == num_positions:
            outcome = "converged"
        elif num_updates >= max_sweeps * num_positions:
            outcome = "max_sweeps"
        elif len(trace) * patience > state.num_settled + window:
            outcome = "gave_up"
        else:
            num_updates += state.width
            state.update()
    contexts_BTC = state.result()
    if outcome == "converged" and len(trace) - 1 > min(_TRUSTED_SWEEPS, num_positions // 2):
        # As many sweeps as this cost far more than a scan does.
        distance = residuals(scan(network, embeddings_BTE, initial_BC), contexts_BTC).max()
        outcome = "converged" if bool(distance < tolerance) else "amplified_rounding"
    return WindowSolution(contexts_BTC, torch.stack(trace), num_updates, state.num_settled, outcome)


class _Windows:
    """A window of contexts from position `start` on, and what is known of it.

    The first `num_settled` positions of the text have settled, and the first `front` are exact.
    """

    def __init__(
        self,
        network: Network,
        embeddings_BTE: Tensor,
        initial_BC: Tensor,
        window: int,
        correct: bool,
    ) -> None:
        num_rows, num_positions, _ = embeddings_BTE.shape
        self.network = network
        self.embeddings = embeddings_BTE
        self.left = initial_BC
        self.correct = correct
        self.start = self.front = self.num_settled = 0
        self.width = window
        self.contexts = initial_BC.new_zeros(num_rows, window, initial_BC.shape[-1])
        self.change = _precise(initial_BC.new_zeros(num_rows, window))
        self.worst = self.best_worst = math.inf
        # Where one window has it all, it is the solution itself.
        whole = (num_rows, num_positions, initial_BC.shape[-1])
        self.solution = None if window == num_positions else initial_BC.new_zeros(whole)

    def look(self, tolerance: float) -> Tensor:
        """Sweeps, and judges the contexts by what the sweep changes; returns the mean residual."""
        embeddings = self.embeddings[:, self.start : self.start + self.width]
        swept = sweep(self.network, self.contexts, embeddings, self.left)
        residual = residuals(self.contexts, swept)
        change = _precise(residual)
        self.next_contexts = swept
        if self.correct:
            self.next_contexts = quasi_newton_step(self.network, self.contexts, swept, embeddings)
            correction = residuals(self.contexts, self.next_contexts)
            change = torch.maximum(change, _precise(correction))
        settled = _settled(self.change, change, tolerance)
        settled[:, : self.front - self.start] = True
        self.change = change
        count = settled.all(dim=0).long().cumprod(dim=0).sum()
        # The one synchronisation of a sweep: two numbers.
        num_settled, self.worst = torch.stack([count.double(), change.max().double()]).tolist()
        self.num_settled = self.start + int(num_settled)
        if self.worst <= self.best_worst:
            self.best, self.best_worst = self.contexts, self.worst
        return residual.mean()

    def update(self) -> None:
        """Takes over what the sweep made, and moves on if enough has settled."""
        self.front += 1
        count = self.num_settled - self.start
        if self.solution is None or count * _STRIDE_SHARE < self.width:
            self.contexts = self.next_contexts
            return
        self.solution[:, self.start : self.num_settled] = self.contexts[:, :count]
        self.left = self.contexts[:, count - 1]
        self.start = self.num_settled
        self.front = max(self.front, self.start)
        width = min(self.contexts.shape[1], self.solution.shape[1] - self.start)
        self.contexts = _moved(self.next_contexts, count, width)
        self.change = _moved(self.change, count, width)
        self.width, self.best_worst = width, math.inf

    def result(self) -> Tensor:
        """The text's contexts; zeros where no window has been."""
        best = self.best if self.best_worst < math.inf else self.contexts
        if self.solution is None:
            return best
        self.solution[:, self.start : self.start + self.width] = best
        return self.solution


def _settled(change_before_BT: Tensor, change_BT: Tensor, tolerance: float) -> Tensor:
    """Where the error, by Banach's bound over all positions up to there, is below the tolerance."""
    largest = change_BT.cummax(dim=1).values.sqrt()
    before = change_before_BT.cummax(dim=1).values.sqrt()
    # M / (1 - q) with q = M / M_before.
    error = largest * before / (before - largest)
    return (largest == 0) | ((largest < before) & (error.square() < tolerance))


def _moved(values: Tensor, count: int, width: int) -> Tensor:
    """Without the first `count` positions, and with zeros for those that are new."""
    kept = values[:, count:]
    new = kept.new_zeros(len(kept), width - kept.shape[1], *kept.shape[2:])
    return torch.cat([kept, new], dim=1)


def scan(network: Network, embeddings_BTE: Tensor, initial_BC: Tensor) -> Tensor:
    """The contexts (B, T, C) token by token: what every other way is measured against."""
    num_rows, num_positions, _ = embeddings_BTE.shape
    contexts_BTC = initial_BC.new_empty(num_rows, num_positions, initial_BC.shape[-1])
    context_BC = initial_BC
    for position in range(num_positions):
        context_BC = network(context_BC, embeddings_BTE[:, position])
        contexts_BTC[:, position] = context_BC
    return contexts_BTC


def rounding_unit(values: Tensor) -> float:
    """Relative rounding error of F's arithmetic on such values, under autocast too."""
    device = values.device.type
    lowered = torch.is_autocast_enabled(device) and values.dtype == torch.float32
    return torch.finfo(torch.get_autocast_dtype(device) if lowered else values.dtype).eps


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
