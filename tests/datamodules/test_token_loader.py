"""The order of training batches, and going on from the middle of an epoch."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from config import Config
from datamodules.token_datamodule import TokenDataModule
from datamodules.token_rows import TokenBatch, TokenRows

LENGTH = 4


def make_rows(folder: Path, num_rows: int) -> TokenRows:
    np.save(folder / "train.npy", np.arange(num_rows * LENGTH, dtype=np.uint16))
    return TokenRows(np.load(folder / "train.npy", mmap_mode="r"), LENGTH)


def test_rows_are_sent_to_workers_without_their_tokens(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, 16_000)
    sent = pickle.dumps(rows)
    assert len(sent) < 1_000
    received = pickle.loads(sent)
    assert torch.equal(received.tokens, rows.tokens)
    assert received.shape == rows.shape == (16_000, LENGTH)


def test_a_process_has_its_part_of_the_rows_in_workers_too(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, 10)
    part = rows.part(1, 2)
    received = pickle.loads(pickle.dumps(part))
    for one in (part, received):
        assert torch.equal(one.tokens, rows.tokens[1::2])
        assert torch.equal(one.take(torch.tensor([3])), rows.tokens[7:8])
        assert len(one) == 5
    assert len(rows) == 10


def make_data(config: Config, num_workers: int = 0) -> TokenDataModule:
    """50 rows: 13 batches."""
    data = TokenDataModule(dataclasses.replace(config, num_samples=50, num_workers=num_workers))
    data.setup()
    return data


def read_epoch(data: TokenDataModule, loader: Any, epoch: int) -> list[TokenBatch]:
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_batches_do_not_depend_on_the_number_of_workers(tiny_config: Config) -> None:
    alone = make_data(tiny_config)
    helped = make_data(tiny_config, num_workers=2)
    for kind in ("train_dataloader", "val_dataloader"):
        loaders = [getattr(data, kind)() for data in (alone, helped)]
        assert [loader.num_workers for loader in loaders] == [0, 2]
        for _ in range(2):
            ours, theirs = (list(loader) for loader in loaders)
            assert len(ours) == len(theirs) > 0
            for one, other in zip(ours, theirs, strict=True):
                assert torch.equal(one.tokens, other.tokens)
                assert torch.equal(one.row_index, other.row_index)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("num_done", [0, 1, 7, 13])
def test_loader_goes_on_behind_the_batches_that_are_done(
    num_workers: int, num_done: int, tiny_config: Config
) -> None:
    data = make_data(tiny_config, num_workers=num_workers)
    whole = read_epoch(data, data.train_dataloader(), epoch=3)
    assert len(whole) == 13

    first = data.train_dataloader()
    first.sampler.set_epoch(3)  # type: ignore[attr-defined]  # a DistributedSampler
    batches = iter(first)
    for _ in range(num_done):
        next(batches)
    state = first.state_dict()

    second = data.train_dataloader()
    second.load_state_dict(state)
    assert second.state_dict() == state
    assert len(second) == 13
    rest = read_epoch(data, second, epoch=3)
    expected = whole[num_done % 13 :]
    assert [b.row_index.tolist() for b in rest] == [b.row_index.tolist() for b in expected]
    assert len(read_epoch(data, second, epoch=4)) == 13


def test_batches_that_are_done_are_not_read_again(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(tiny_config)
    reads = []
    take = TokenRows.take
    monkeypatch.setattr(TokenRows, "take", lambda rows, i: reads.append(len(i)) or take(rows, i))
    loader = data.train_dataloader()
    loader.load_state_dict({"num_batches": 11})
    assert len(list(loader)) == len(reads) == 2


class Recorder(L.LightningModule):
    """Keeps the rows that it was trained on; one weight."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.stop_after = stop_after
        self.seen: list[tuple[int, int, list[int]]] = []

    def training_step(self, batch: TokenBatch, batch_index: int) -> Tensor:
        if len(self.seen) == self.stop_after:
            raise InterruptedError
        self.seen.append((self.current_epoch, batch_index, batch.row_index.tolist()))
        return self.weight * 0

    def validation_step(self, batch: TokenBatch, batch_index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    module: Recorder, data: TokenDataModule, folder: Path, ckpt_path: Path | None = None
) -> None:
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        callbacks=[
            ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)


@pytest.mark.parametrize(
    ("num_steps", "num_workers"), [(4, 0), (13, 0), (17, 0), (26, 0), (38, 0), (17, 2), (26, 2)]
)
def test_lightning_goes_on_in_the_middle_of_an_epoch(
    num_steps: int,
    num_workers: int,
    tiny_config: Config,
    tmp_path: Path,
) -> None:
    data = make_data(tiny_config)
    alone = Recorder()
    fit(alone, data, tmp_path / "alone")
    assert len(alone.seen) == 3 * 13

    helped = make_data(tiny_config, num_workers)
    cut_off = Recorder(stop_after=num_steps)
    with pytest.raises(InterruptedError):
        fit(cut_off, helped, tmp_path / "cut_off")
    continued = Recorder()
    fit(continued, helped, tmp_path / "continued", tmp_path / "cut_off" / f"step={num_steps}.ckpt")
    assert cut_off.seen + continued.seen == alone.seen
