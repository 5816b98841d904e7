"""Figures of the processes that train together (ranks); of one process, what is given."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def num_ranks() -> int:
    """Processes that train together; 1 where there is no process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """The mean of all ranks' tensors of one shape; its gradient flows to all of them."""
    if num_ranks() == 1:
        return tensor
    mean: Tensor = _MeanOverRanks.apply(tensor)  # type: ignore[no-untyped-call]  # untyped in torch
    return mean


def all_ranks(tensor: Tensor) -> Tensor:
    """All ranks' tensors of one shape, stacked along a new first dimension; without gradient."""
    if num_ranks() == 1:
        return tensor.unsqueeze(0)
    tensors = [torch.empty_like(tensor) for _ in range(num_ranks())]
    dist.all_gather(tensors, tensor)
    return torch.stack(tensors)


class _MeanOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        mean = tensor / num_ranks()
        dist.all_reduce(mean)
        return mean

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # The mean's transpose is a mean again: every rank's loss depends on every rank's tensor.
        return mean_over_ranks(gradient)
