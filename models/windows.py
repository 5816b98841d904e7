"""Solving `c = G(c)` by sweeps over a window of positions that moves on as its left end settles.

A window of all positions is the Jacobi iteration; a shorter one is Gauss-Seidel over blocks with
Jacobi inside, which bounds memory and sweeps no position again that has settled.

Shapes: B sequences, T tokens, W positions of a window, C = context_dim, E = embed_dim.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.scan import scan
from models.sweeps import Network, quasi_newton_step, residuals, sweep

Outcome = Literal["converged", "max_sweeps", "non_finite", "amplified_rounding", "gave_up"]

_STRIDE_SHARE = 8
"""A window moves on when this part of it has settled: less often, and copies would cost more."""
_TRUSTED_SWEEPS = 64
"""A position that is exact because as many sweeps have passed from its left says nothing about
whether F contracts, and rounding errors may have grown: beyond this number they are looked at. Of
arithmetic that is coarser than float32 fewer are trusted, by its bits: errors grow by a factor a sweep."""


_SAFETY = 2.0
"""Factor on an estimated error: the ratio that was seen stands for the constant that holds."""
_HANDED_ON = 64
"""Part of the tolerance that the contexts of a window which moves on may use."""
_NEARBY = 32
"""Positions to each side whose residuals tell whether a quasi-Newton step did good."""


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
    M / (1 - q), M the largest change up to t and q its ratio to the sweep before, or that one's to
    the one before it. Where q is 1 or more, nothing has settled but the positions that are exact:
    one more with every sweep.

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
        The contexts that have converged, else those whose largest residual is the lowest seen.
    """
    num_positions = embeddings_BTE.shape[1]
    window = min(window, num_positions)
    state = _Windows(network, embeddings_BTE, initial_BC, window, correct)
    # What a window leaves of an error is handed on to the next.
    settled_below = tolerance if window == num_positions else tolerance / _HANDED_ON
    trace: list[Tensor] = []
    num_updates = 0
    outcome: Outcome | None = None
    while outcome is None:
        mean_residual, worst = state.look(settled_below)
        trace.append(mean_residual)
        if not math.isfinite(worst):
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
    contexts_BTC = state.result(best=outcome != "converged")
    num_trusted = min(_trusted_sweeps(embeddings_BTE), num_positions // 2)
    if outcome == "converged" and len(trace) - 1 > num_trusted:
        # As many sweeps as this cost far more than a scan does.
        distance = residuals(scan(network, embeddings_BTE, initial_BC), contexts_BTC).max()
        outcome = "converged" if bool(distance < tolerance) else "amplified_rounding"
    return WindowSolution(contexts_BTC, torch.stack(trace), num_updates, state.num_settled, outcome)


class _Settling:
    """Which positions of a window have settled, told by how their changes fall from sweep to sweep."""

    def __init__(self, num_rows: int, width: int, like: Tensor) -> None:
        self.change = _precise(like.new_zeros(num_rows, width))
        self.rate = torch.full_like(self.change, math.inf)
        self.settled = torch.zeros_like(self.change, dtype=torch.bool)

    def judge(self, change_BW: Tensor, tolerance: float, num_exact: int) -> Tensor:
        """(B, W), after a sweep that changes the positions so; the first `num_exact` are exact."""
        largest = change_BW.cummax(dim=1).values.sqrt()
        rate = largest / self.change.cummax(dim=1).values.sqrt()
        error = _SAFETY * largest / (1 - torch.maximum(rate, self.rate)).clamp_min(0)
        # Once settled is settled: later changes may be no more than rounding errors.
        settled = self.settled | (largest == 0) | (error.square() < tolerance)
        settled[:, :num_exact] = True
        self.change, self.rate, self.settled = change_BW, rate, settled
        return settled

    def move_on(self, count: int, width: int) -> None:
        """Leaves the first `count` positions behind."""
        self.change = _moved(self.change, count, width, new=0.0)
        self.rate = _moved(self.rate, count, width, new=math.inf)
        self.settled = _moved(self.settled, count, width, new=False)


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
        self.next_contexts = self.best = self.contexts
        self.best_worst = math.inf
        self.settling = _Settling(num_rows, window, initial_BC)
        self.nearby = torch.full_like(self.settling.change, math.inf)
        # Where one window has it all, it is the solution itself.
        whole = (num_rows, num_positions, initial_BC.shape[-1])
        self.solution = None if window == num_positions else initial_BC.new_zeros(whole)

    def look(self, tolerance: float) -> tuple[Tensor, float]:
        """Sweeps, and judges the contexts by what the sweep changes; mean and largest residual."""
        embeddings = self.embeddings[:, self.start : self.start + self.width]
        swept = sweep(self.network, self.contexts, embeddings, self.left)
        residual = residuals(self.contexts, swept)
        change = _precise(residual)
        self.next_contexts = swept
        if self.correct:
            corrected = quasi_newton_step(self.network, self.contexts, swept, embeddings)
            self.next_contexts = self._where_it_helps(corrected, swept, change)
            correction = residuals(self.contexts, corrected)
            change = torch.maximum(change, _precise(correction))
        settled = self.settling.judge(change, tolerance, self.front - self.start)
        count = settled.all(dim=0).long().cumprod(dim=0).sum()
        # The one synchronisation of a sweep: two numbers.
        num_settled, worst = torch.stack([count.double(), residual.max().double()]).tolist()
        self.num_settled = self.start + int(num_settled)
        # The zeros of the start are no result, however small their residual may be.
        if self.front > 0 and worst <= self.best_worst:
            self.best, self.best_worst = self.contexts, worst
        return residual.mean(), worst

    def _where_it_helps(self, corrected: Tensor, swept: Tensor, residual: Tensor) -> Tensor:
        """A quasi-Newton step where the last one did good, the sweep alone where it did not.

        Where F is far from the linear memory that the step takes it for, changes would grow from
        step to step; a sweep makes them smaller.
        """
        nearby = F.max_pool1d(residual, 2 * _NEARBY + 1, stride=1, padding=_NEARBY)
        falls = nearby < self.nearby
        self.nearby = nearby
        return torch.where(falls.unsqueeze(-1), corrected, swept)

    def update(self) -> None:
        """Takes over what the sweep made, and moves on if enough has settled."""
        self.front += 1
        count = self.num_settled - self.start
        if self.solution is None or count * _STRIDE_SHARE < self.width:
            self.contexts = self.next_contexts
            return
        # What the sweep made of settled contexts is closer yet, and all that follows builds on it.
        self.solution[:, self.start : self.num_settled] = self.next_contexts[:, :count]
        self.left = self.next_contexts[:, count - 1]
        self.start = self.num_settled
        self.front = max(self.front, self.start)
        width = min(self.contexts.shape[1], self.solution.shape[1] - self.start)
        self.contexts = _moved(self.next_contexts, count, width, new=0.0)
        self.nearby = _moved(self.nearby, count, width, new=math.inf)
        self.settling.move_on(count, width)
        self.width, self.best_worst = width, math.inf

    def result(self, *, best: bool) -> Tensor:
        """The text's contexts, with the window's best or latest; zeros where none has been."""
        last = self.best if best and self.best_worst < math.inf else self.contexts
        if self.solution is None:
            return last
        self.solution[:, self.start : self.start + self.width] = last
        return self.solution


def _moved(values: Tensor, count: int, width: int, *, new: float) -> Tensor:
    """Without the first `count` positions, and with a value for those that are new."""
    kept = values[:, count:]
    shape = (len(kept), width - kept.shape[1], *kept.shape[2:])
    return torch.cat([kept, kept.new_full(shape, new)], dim=1)


def rounding_unit(values: Tensor) -> float:
    """Relative rounding error of F's arithmetic on such values, under autocast too."""
    device = values.device.type
    lowered = torch.is_autocast_enabled(device) and values.dtype == torch.float32
    return torch.finfo(torch.get_autocast_dtype(device) if lowered else values.dtype).eps


def _trusted_sweeps(values: Tensor) -> float:
    bits = math.log2(rounding_unit(values)) / math.log2(torch.finfo(torch.float32).eps)
    return _TRUSTED_SWEEPS * min(1.0, bits)


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
