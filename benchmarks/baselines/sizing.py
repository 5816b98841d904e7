"""Models of a given number of parameters, found by solving for their width."""

from collections.abc import Callable

import torch
from torch import nn

from config import InputError

TOLERANCE = 0.05
"""How far the number of parameters may be from what was asked for."""


def count_parameters(model: nn.Module) -> int:
    """All weights, tied ones once; buffers are no parameters."""
    return sum(weight.numel() for weight in model.parameters())


def solve_size(make: Callable[[int], nn.Module], target: float) -> int:
    """The size whose model comes closest to a number of parameters.

    Args:
        make: builds the model of a size, 1 or more; on torch's `meta` device, where weights take
            no memory. More size must not mean fewer parameters.
        target: number of parameters.

    Raises:
        InputError: none is within 5 %.
    """

    def count(size: int) -> int:
        with torch.device("meta"):
            return count_parameters(make(size))

    above = 1
    while count(above) < target:
        above *= 2
    below = above // 2
    while above - below > 1:
        middle = (above + below) // 2
        below, above = (middle, above) if count(middle) < target else (below, middle)
    sizes = [size for size in (below, above) if size >= 1]
    best = min(sizes, key=lambda size: abs(count(size) - target))
    if abs(count(best) - target) > TOLERANCE * target:
        raise InputError(
            f"--parameters {target:,.0f} is met to 5 % by no width; the nearest has "
            f"{count(best):,}. It must be larger, or --vocab-size smaller."
        )
    return best
