"""The order of training rows: each process always has the same ones.

Shapes: N rows, B of them in a batch, R processes (ranks) with B / R of a batch's rows each.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler


class RowSampler(Sampler[int]):
    """Rows of an epoch in batches of which each rank has its part.

    Row i has place i mod B in its batch, and which batch of the epoch that is, is drawn anew for
    every epoch among the rows of that place: so rows that a rank has once stay with it (those with
    i mod R = rank), as do contexts that it keeps for them. Batches follow from seed, epoch and B,
    whatever R is.

    Args:
        num_rows: N, divisible by R.
        batch_size: B, divisible by R.
        seed: of the order.
        rank: from 0 to R - 1.
        num_ranks: R.
    """

    def __init__(
        self, num_rows: int, batch_size: int, *, seed: int, rank: int = 0, num_ranks: int = 1
    ) -> None:
        assert num_rows % num_ranks == 0
        assert batch_size % num_ranks == 0
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.num_ranks = num_ranks
        self._epoch = 0
        self._num_skipped = 0

    def __len__(self) -> int:
        return self.num_rows // self.num_ranks

    def __iter__(self) -> Iterator[int]:
        """The rank's own rows, counted among those that it has: row i is its i // R."""
        order = self._order()
        first = self._num_skipped * (self.batch_size // self.num_ranks)
        self._num_skipped = 0
        yield from order[first:].tolist()

    def set_epoch(self, epoch: int) -> None:
        """Has the next iteration be that of an epoch, counted from 0."""
        self._epoch = epoch

    def skip_batches(self, num_batches: int) -> None:
        """Has the next iteration leave out its first batches, which were trained on before."""
        self._num_skipped = num_batches

    def _order(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + self._epoch)
        num_batches = -(-self.num_rows // self.batch_size)
        keys = torch.rand(self.batch_size, num_batches, generator=generator)
        # Places of the last batch that have no row: last in the order of their place.
        missing = self.num_rows - (num_batches - 1) * self.batch_size
        keys[missing:, -1] = torch.inf
        places = torch.arange(self.batch_size)
        rows = keys.argsort(dim=1).T * self.batch_size + places
        own = rows[:, self.rank :: self.num_ranks].flatten()
        return own[own < self.num_rows] // self.num_ranks
