"""Running statistics of the contexts, and the diversity losses that act on them.

What a loss comes to must depend on the contexts alone, not on how many of them a batch has or how
long the averages remember. Two things see to it. Averages reach back over a window that is counted
in contexts and bounded, long enough for a log-determinant. And the square of a finite sample's
covariance is too large by about C / N, because each sequence also meets itself in it: that part is
known (`ContextStatistics.own_square`) and taken off. A text that is shorter than the window comes
again within it, as if it were new: the longer it is averaged over, the more its covariance is taken
as that of all there is, which nothing is taken off.

Shapes: B sequences, T tokens, C = context_dim, N = B T contexts.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ranks import mean_over_ranks, num_ranks

_RIDGE = 0.05
"""Added to every eigenvalue before its logarithm is taken."""
_SHORTEST_WINDOW = 8
"""Contexts a dimension that the averages reach back over at least."""
_LONGEST_WINDOW = 64
"""Contexts a dimension that they reach back over at most: beyond, what is averaged are the contexts
of weights that training has left behind."""
_VARIANCE_FLOOR = 1e-4
"""Keeps the slope of a standard deviation finite where a variance is 0; as in VICReg."""


class ContextStatistics(NamedTuple):
    """Averages over the contexts, and what the sequences' meeting themselves adds to a square.

    mean: (C,). covariance: (C, C).
    own_square: what sequences that meet themselves have in the squared norm of the covariance.
    own_share: the share of all pairs of sequences that are of one sequence with itself, from 0 to
        1; at 1 there is one sequence, and nothing can be told about others.
    """

    mean: Tensor
    covariance: Tensor
    own_square: Tensor
    own_share: Tensor


class RunningStatistics(nn.Module):
    """Mean and covariance of contexts as exponential moving averages over batches.

    The *values* are the averages (debiased, as in Adam, so that early ones are not drawn towards
    zero); the *gradient* is the batch's own, whole: `batch + (average - batch).detach()`. Scaled
    by 1 - momentum, as a plain average would have it, the weight of the diversity loss would
    depend on the momentum; detached, the loss would move no weight at all.

    Where several processes train together, each with its part of the batch, all statistics are
    those of the whole batch, and the mean of the processes' gradients, which is what
    DistributedDataParallel makes of them, is the whole batch's gradient. Where gradients of several
    batches are added up before a step, every batch is taken in when it comes: weights do not move
    between them, so averages are fresher, and the gradient of a batch is taken at what it and those
    before it have made of them.

    Second moments are averaged without centring, and centred by the averaged mean: a batch of
    fewer than C contexts would otherwise lose rank to its own mean.

    Args:
        context_dim: C.
        momentum: share of the averages that a batch leaves, from 0 to below 1; more or less is left
            where the window would otherwise be shorter than 8 C contexts or longer than 64 C.
    """

    def __init__(self, context_dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.first_sum: Tensor
        self.second_sum: Tensor
        self.weight_sum: Tensor
        self.own_square_sum: Tensor
        self.own_share_sum: Tensor
        self.register_buffer("first_sum", torch.zeros(context_dim))
        self.register_buffer("second_sum", torch.zeros(context_dim, context_dim))
        for name in ("weight_sum", "own_square_sum", "own_share_sum"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, contexts_BTC: Tensor) -> ContextStatistics:
        """Takes a batch (B, T, C) into the averages and returns them, with the batch's gradient."""
        contexts_BTC = contexts_BTC.to(self.first_sum.dtype)
        # A covariance is a difference of large numbers: not in the lower precision of autocast.
        with torch.autocast(contexts_BTC.device.type, enabled=False):
            return self._averages(contexts_BTC)

    def _averages(self, contexts_BTC: Tensor) -> ContextStatistics:
        contexts_NC = contexts_BTC.flatten(0, 1)
        share = 1 - self._momentum_of(len(contexts_NC) * num_ranks())
        batch_mean = mean_over_ranks(contexts_NC.mean(dim=0))
        # All losses are symmetric in the second moments: half of the products' derivative is the
        # other half's transpose, and one product gives the gradient of both.
        half = contexts_NC.T @ contexts_NC.detach() / len(contexts_NC)
        batch_second = 2 * half - half.detach()
        self._take_in(batch_mean, mean_over_ranks(batch_second.detach()), share)
        mean = _with_slope_of(batch_mean, self.first_sum / self.weight_sum)
        second = _with_slope_of(batch_second, self.second_sum / self.weight_sum)
        own_square, own_share = self._own_part(contexts_BTC - mean, share)
        return ContextStatistics(mean, second - torch.outer(mean, mean), own_square, own_share)

    @torch.no_grad()
    def _take_in(self, batch_mean: Tensor, batch_second: Tensor, share: float) -> None:
        self.first_sum.lerp_(batch_mean, share)
        self.second_sum.lerp_(batch_second, share)
        self.weight_sum.lerp_(torch.ones_like(self.weight_sum), share)

    def _own_part(self, centred_BTC: Tensor, share: float) -> tuple[Tensor, Tensor]:
        num_rows, num_positions, _ = centred_BTC.shape
        # ‖XᵀX‖ = ‖X Xᵀ‖: (T, T) a sequence instead of (C, C).
        gram_BTT = centred_BTC @ centred_BTC.mT
        ranks = num_ranks()
        batch_square = gram_BTT.square().sum() / (num_rows * num_positions) ** 2 / ranks
        with torch.no_grad():
            square_of_ranks = mean_over_ranks(batch_square.detach())
            self.own_square_sum.mul_((1 - share) ** 2).add_(share**2 * square_of_ranks)
            self.own_share_sum.mul_((1 - share) ** 2).add_(share**2 / (num_rows * ranks))
        whole = self.weight_sum.square()
        # Against the averages, a batch meets itself with the share that it has in them.
        batch_square = batch_square * (share / self.weight_sum)
        own_square = _with_slope_of(batch_square, self.own_square_sum / whole)
        return own_square, self.own_share_sum / whole

    def _momentum_of(self, num_contexts: int) -> float:
        dimensions = num_contexts / len(self.first_sum)
        shortest, longest = (
            max(0.0, 1 - dimensions / window) for window in (_SHORTEST_WINDOW, _LONGEST_WINDOW)
        )
        return min(max(self.momentum, shortest), longest)


def _with_slope_of(batch: Tensor, average: Tensor) -> Tensor:
    return batch + (average - batch).detach()


def covariance_distance(statistics: ContextStatistics) -> Tensor:
    """Squared distance of the covariance from the identity, a dimension: `‖Cov - I‖²_F / C`.

    0 for white contexts, however few of them were seen; (C - 1) for contexts that lie on one line
    through the origin with the same total variance, and 1 for contexts that have collapsed onto a
    point. Related: Barlow Twins, arXiv 2103.03230; VICReg, arXiv 2105.04906.
    """
    context_dim = len(statistics.covariance)
    # ‖Cov - I‖² = ‖Cov‖² - 2 trace(Cov) + C: no second (C, C) matrix is made.
    square = _square_of_covariance(statistics) / context_dim
    return square - 2 * statistics.covariance.diagonal().mean() + 1


def variance_covariance(statistics: ContextStatistics) -> Tensor:
    """VICReg's two terms at 1:1: `mean relu(1 - std) + sum of off-diagonal Cov² / C`.

    0 for white contexts, and 1 for contexts that have collapsed onto a point. arXiv 2105.04906.
    """
    variance = statistics.covariance.diagonal()
    hinge = F.relu(1 - (variance + _VARIANCE_FLOOR).sqrt()).mean()
    off_diagonal = _square_of_covariance(statistics) - variance.square().sum()
    return hinge + off_diagonal / len(variance)


def log_det_distance(statistics: ContextStatistics) -> Tensor:
    """Mean -log eigenvalue of the second moments, with a ridge: 0 for white contexts.

    Grows as directions empty, where `covariance_distance` looks at the full ones above all.
    Uncentred, as effective rank is. The log-determinant is the coding rate of the contexts up to
    scale and sign (MCR², arXiv 2006.08558). From a finite sample its value is too high, by a
    constant: for linear maps of Gaussian vectors its gradient is that of the whole, as
    log det AᵀSA = log det S + 2 log det A. NaN where a moment is not finite.
    """
    moments = statistics.covariance + torch.outer(statistics.mean, statistics.mean)
    ridge = _RIDGE * torch.eye(len(moments), device=moments.device, dtype=moments.dtype)
    factor, _ = torch.linalg.cholesky_ex(moments.detach() + ridge)
    distance = math.log1p(_RIDGE) - 2 * factor.diagonal().log().mean()
    # The gradient of log det is the inverse: a third of what the factor's own derivative costs.
    slope = -torch.cholesky_inverse(factor) / len(moments)
    with_slope: Tensor = distance + (slope * (moments - moments.detach())).sum()
    return with_slope


def dispersion(statistics: ContextStatistics) -> Tensor:
    """`1 - ‖c - mean‖ / sqrt(N C)`, the norm over all contexts: 0 for contexts around zero.

    1 for contexts that have collapsed onto a point. Blind to how many directions they fill.
    """
    variance = statistics.covariance.diagonal().mean()
    return 1 - (variance + _VARIANCE_FLOOR).sqrt()


def _square_of_covariance(statistics: ContextStatistics) -> Tensor:
    """`‖Cov‖²_F` as pairs of different sequences show it: without bias but for the mean's own."""
    # A lone sequence meets none but itself, and is judged as it is.
    lone = statistics.own_share >= 1 - 1e-6
    own_square = statistics.own_square.masked_fill(lone, 0)
    own_share = statistics.own_share.masked_fill(lone, 0)
    square: Tensor = (statistics.covariance.square().sum() - own_square) / (1 - own_share)
    return square


DIVERSITY_LOSSES: Mapping[str, Callable[[ContextStatistics], Tensor]] = {
    "covariance": covariance_distance,
    "variance_covariance": variance_covariance,
    "log_det": log_det_distance,
    "dispersion": dispersion,
}
