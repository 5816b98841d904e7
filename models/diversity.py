"""Running statistics of the contexts, and the diversity loss that acts on them.

Shapes: N contexts of C = context_dim entries.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

_RIDGE = 0.05
"""Added to every eigenvalue before its logarithm is taken."""


class ContextStatistics(NamedTuple):
    """mean: (C,). covariance: (C, C)."""

    mean: Tensor
    covariance: Tensor


class RunningStatistics(nn.Module):
    """Mean and covariance of contexts as exponential moving averages over batches.

    The *values* are the averages (debiased, as in Adam, so that early ones are not drawn towards
    zero); the *gradient* is the batch's own, whole: `batch + (average - batch).detach()`. Scaled
    by 1 - momentum, as a plain average would have it, the weight of the diversity loss would
    depend on the momentum; detached, the loss would move no weight at all.

    Second moments are averaged without centring, and centred by the averaged mean: a batch of
    fewer than C contexts would otherwise lose rank to its own mean.
    """

    def __init__(self, context_dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.first_sum: Tensor
        self.second_sum: Tensor
        self.weight_sum: Tensor
        self.register_buffer("first_sum", torch.zeros(context_dim))
        self.register_buffer("second_sum", torch.zeros(context_dim, context_dim))
        self.register_buffer("weight_sum", torch.zeros(()))

    def forward(self, contexts_NC: Tensor) -> ContextStatistics:
        """Takes a batch (N, C) into the averages and returns them, with the batch's gradient."""
        contexts_NC = contexts_NC.to(self.first_sum.dtype)
        batch_first = contexts_NC.mean(dim=0)
        # A covariance is a difference of large numbers: not in the lower precision of autocast.
        with torch.autocast(contexts_NC.device.type, enabled=False):
            batch_second = contexts_NC.T @ contexts_NC / contexts_NC.shape[0]
        with torch.no_grad():
            self.first_sum.lerp_(batch_first, 1 - self.momentum)
            self.second_sum.lerp_(batch_second, 1 - self.momentum)
            self.weight_sum.lerp_(torch.ones_like(self.weight_sum), 1 - self.momentum)
        first = batch_first + (self.first_sum / self.weight_sum - batch_first).detach()
        second = batch_second + (self.second_sum / self.weight_sum - batch_second).detach()
        return ContextStatistics(first, second - torch.outer(first, first))


def covariance_distance(statistics: ContextStatistics) -> Tensor:
    """Squared distance of the covariance from the identity, a dimension: `‖Cov - I‖²_F / C`.

    0 for white contexts; (C - 1) for contexts that lie on one line through the origin with the
    same total variance, and at least 1 for contexts that have collapsed onto a point.
    Related: Barlow Twins, arXiv 2103.03230; VICReg, arXiv 2105.04906.
    """
    covariance = statistics.covariance
    context_dim = covariance.shape[0]
    # ‖Cov - I‖² = ‖Cov‖² - 2 trace(Cov) + C: no second (C, C) matrix is made.
    return covariance.square().sum() / context_dim - 2 * covariance.diagonal().mean() + 1


def log_det_distance(statistics: ContextStatistics) -> Tensor:
    """Mean -log eigenvalue of the second moments, with a ridge: 0 for white contexts.

    Grows as directions empty, where `covariance_distance` looks at the full ones above all.
    Uncentred, as effective rank is. The log-determinant is the coding rate of the contexts up to
    scale and sign (MCR², arXiv 2006.08558).

    Raises:
        torch.linalg.LinAlgError: a moment is not finite.
    """
    moments = statistics.covariance + torch.outer(statistics.mean, statistics.mean)
    ridge = _RIDGE * torch.eye(len(moments), device=moments.device, dtype=moments.dtype)
    factor = torch.linalg.cholesky(moments + ridge)
    distance: Tensor = math.log1p(_RIDGE) - 2 * factor.diagonal().log().mean()
    return distance


DIVERSITY_LOSSES: Mapping[str, Callable[[ContextStatistics], Tensor]] = {
    "covariance": covariance_distance,
    "log_det": log_det_distance,
}
