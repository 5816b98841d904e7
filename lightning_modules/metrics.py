"""Metrics that are summed over batches and processes before they are evaluated."""

import torch
from torch import Tensor
from torchmetrics import Metric

from models.diagnostics import rank_of_gram
from models.ranks import all_ranks, num_ranks


class EffectiveRank(Metric):
    """Effective rank of all contexts seen since the last reset, from their summed Gram matrix.

    The Gram matrix is (C, C) float64 whatever the number of contexts, and sums over processes.
    """

    full_state_update = False
    gram: Tensor

    def __init__(self, context_dim: int) -> None:
        super().__init__()
        zeros = torch.zeros(context_dim, context_dim, dtype=torch.float64)
        self.add_state("gram", zeros, dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, contexts: Tensor) -> None:
        """Takes in contexts of any leading shape, (..., C)."""
        contexts_NC = contexts.flatten(0, -2).double()
        self.gram += contexts_NC.T @ contexts_NC

    def compute(self) -> Tensor:
        return torch.tensor(rank_of_gram(self.gram))


class WeightedMean(Metric):
    """Mean of values, each with its weight; a value that is not a number makes the mean none.

    With `num_figures`, of that many figures at once, each update a vector of them: an update costs
    the same whatever their number, and no synchronisation.

    torchmetrics' own leaves such values out, which hides a loss that diverged, or (told not to
    look for them) leaves out the weights.
    """

    full_state_update = False
    weighted_sum: Tensor
    weight_sum: Tensor

    def __init__(self, num_figures: int | None = None) -> None:
        super().__init__()
        shape = () if num_figures is None else (num_figures,)
        zeros = torch.zeros(shape, dtype=torch.float64)
        self.add_state("weighted_sum", zeros, dist_reduce_fx="sum")
        self.add_state("weight_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, value: Tensor | float, weight: int) -> None:
        """Takes in the mean of `weight` things."""
        self.weighted_sum += value * weight
        self.weight_sum += weight

    def compute(self) -> Tensor:
        return (self.weighted_sum / self.weight_sum).float()

    def sums_of_ranks(self) -> Tensor:
        """What every process has taken in, (ranks, figures + 1): of a checkpoint amid an epoch."""
        own = torch.cat([self.weighted_sum.flatten(), self.weight_sum.flatten()])
        return all_ranks(own).cpu()

    def restore_sums(self, sums: Tensor, rank: int) -> None:
        """Takes a process's own of `sums_of_ranks`, in place of what was taken in so far.

        Where another number of processes wrote them, the first takes them all.
        """
        if len(sums) == num_ranks():
            own = sums[rank]
        else:
            own = sums.sum(dim=0) if rank == 0 else torch.zeros_like(sums[0])
        self.weighted_sum.copy_(own[:-1].view_as(self.weighted_sum))
        self.weight_sum.copy_(own[-1])
