"""Compiles what a training step computes."""

from collections.abc import Callable
from typing import Generic, TypeVar, TypeVarTuple

import torch
from torch import Tensor

Others = TypeVarTuple("Others")
Result = TypeVar("Result")


class FullBatches(Generic[*Others, Result]):
    """A function that is compiled for batches of the shape that comes first.

    The last batch of an epoch may have fewer rows: to compile for it too would take longer than all
    that it saves, and it goes through the function as it is.

    Args:
        function: of tensors, the first of which is a batch's.
    """

    def __init__(self, function: Callable[[Tensor, *Others], Result]) -> None:
        self.function = function
        self.compiled = torch.compile(function, dynamic=False)
        self.shape: torch.Size | None = None

    def __call__(self, batch: Tensor, *others: *Others) -> Result:
        if self.shape is None:
            self.shape = batch.shape
        function = self.compiled if batch.shape == self.shape else self.function
        return function(batch, *others)
