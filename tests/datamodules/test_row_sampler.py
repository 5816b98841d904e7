"""The order of training rows, alone and shared by processes."""

import pytest
import torch

from datamodules.row_sampler import RowSampler


def batches(
    num_rows: int, batch_size: int, epoch: int, *, rank: int, ranks: int
) -> list[list[int]]:
    """A rank's part of each batch, in the rows' own numbers."""
    sampler = RowSampler(num_rows, batch_size, seed=3, rank=rank, num_ranks=ranks)
    sampler.set_epoch(epoch)
    rows = torch.tensor(list(sampler)) * ranks + rank
    return [part.tolist() for part in rows.split(batch_size // ranks)]


@pytest.mark.parametrize(("num_rows", "batch_size"), [(50, 8), (48, 8), (5, 8), (7, 1)])
def test_every_row_is_in_an_epoch_once(num_rows: int, batch_size: int) -> None:
    parts = batches(num_rows, batch_size, 0, rank=0, ranks=1)
    assert sorted(row for part in parts for row in part) == list(range(num_rows))
    assert {len(part) for part in parts[:-1]} <= {batch_size}


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_the_batches_of_one_process_and_keep_their_rows(ranks: int) -> None:
    owned: list[set[int]] = [set() for _ in range(ranks)]
    for epoch in range(3):
        whole = batches(52, 8, epoch, rank=0, ranks=1)
        parts = [batches(52, 8, epoch, rank=rank, ranks=ranks) for rank in range(ranks)]
        for batch, *shares in zip(whole, *parts, strict=True):
            assert sorted(batch) == sorted(row for share in shares for row in share)
            assert {len(share) for share in shares} == {len(batch) // ranks}
        for rank in range(ranks):
            owned[rank] |= {row for part in parts[rank] for row in part}
    assert sum(map(len, owned)) == 52


def test_rows_meet_others_in_other_epochs() -> None:
    first, second = (batches(48, 8, epoch, rank=0, ranks=1) for epoch in (0, 1))
    assert {frozenset(batch) for batch in first}.isdisjoint(frozenset(batch) for batch in second)


def test_skipped_batches_are_left_out_once() -> None:
    sampler = RowSampler(52, 8, seed=0, rank=1, num_ranks=2)
    whole = list(sampler)
    sampler.skip_batches(3)
    assert list(sampler) == whole[12:]
    assert list(sampler) == whole
    assert len(sampler) == len(whole) == 26
