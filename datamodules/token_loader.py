"""Training batches in an order that follows from seed and epoch, from any batch of an epoch on."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from datamodules.row_sampler import RowSampler
from datamodules.token_rows import TokenBatch, TokenRows


class TrainingLoader(DataLoader[TokenBatch]):
    """A loader that goes on in the middle of an epoch: Lightning keeps its state in checkpoints.

    What is counted is the batches that were handed out, whatever workers have ready.
    """

    _num_done = 0
    _num_to_skip = 0

    def state_dict(self) -> dict[str, int]:
        """Batches of the running epoch that were handed out; none of one that has ended."""
        return {"num_batches": self._num_done % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next epoch that begins starts behind these batches."""
        self._num_to_skip = self._num_done = state["num_batches"]

    def __iter__(self) -> Iterator[TokenBatch]:  # type: ignore[override]  # any iterator will do
        # A generator, so that nothing is drawn before the first batch is asked for: Lightning
        # makes the iterator first and tells the sampler the epoch of a continued run afterwards.
        sampler = self.sampler
        assert isinstance(sampler, RowSampler)
        self._num_done, self._num_to_skip = self._num_to_skip, 0
        sampler.skip_batches(self._num_done)
        for batch in super().__iter__():
            self._num_done += 1
            yield batch


def make_training_loader(
    rows: TokenRows, sampler: RowSampler, batch_size: int, num_workers: int
) -> TrainingLoader:
    """A loader of batches of a sampler's rows, which it takes in its own order."""
    return TrainingLoader(rows, sampler=sampler, **loader_settings(batch_size, num_workers))


def loader_settings(batch_size: int, num_workers: int) -> dict[str, Any]:
    """What the loaders of training and of evaluation share."""
    return {
        "batch_size": batch_size,
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "collate_fn": _as_it_is,
        # Of its own: a loader draws a seed for its workers from the numbers that dropout draws
        # from, and not equally often in a run that is continued.
        "generator": torch.Generator(),
    }


def _as_it_is(batch: TokenBatch) -> TokenBatch:
    """`__getitems__` has put the batch together already."""
    return batch
