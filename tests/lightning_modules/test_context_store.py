"""Contexts come back as they were put in, wherever they lie."""

import dataclasses
import gc
from pathlib import Path
from typing import get_args

import lightning as L
import pytest
import torch
from torch import Tensor

from config import Config, ContextDtype, ContextStorage, InputError
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import context_store
from lightning_modules.context_store import ContextStore
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.token_prediction_module import TokenPredictionModule
from tuning.training import NO_LOGGER, fit_phase

SHAPE = (6, 5, 4)
STORAGES = get_args(ContextStorage)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make(
    storage: ContextStorage, folder: Path, dtype: ContextDtype = "float32", num_sharing: int = 1
) -> ContextStore:
    return ContextStore(
        SHAPE,
        kept_as=DTYPES[dtype],
        like=torch.zeros(1),
        storage=storage,
        folder=folder,
        num_sharing=num_sharing,
    )


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("storage", STORAGES)
def test_rows_are_written_and_read(
    storage: ContextStorage, dtype: ContextDtype, tmp_path: Path
) -> None:
    store = make(storage, tmp_path, dtype)
    assert not bool(store[torch.arange(6)].any())
    contexts = torch.randn(2, 5, 4)
    store[torch.tensor([4, 1])] = contexts
    read = store[torch.tensor([1, 0, 4])]
    assert read.dtype == torch.float32
    expected = contexts.to(DTYPES[dtype]).float()
    assert torch.equal(read[0], expected[1])
    assert torch.equal(read[2], expected[0])
    assert not bool(read[1].any())


@pytest.mark.parametrize("storage", STORAGES)
def test_all_rows_are_taken_at_once(storage: ContextStorage, tmp_path: Path) -> None:
    store = make(storage, tmp_path)
    contexts = torch.randn(SHAPE)
    store.fill(contexts)
    assert torch.equal(store.rows, contexts)


def test_no_file_is_left_whatever_happens(tmp_path: Path) -> None:
    store = make("disk", tmp_path / "made")
    assert store.place == "disk"
    assert list((tmp_path / "made").iterdir()) == []
    with pytest.raises(IndexError):
        store[torch.tensor([6])]
    assert list((tmp_path / "made").iterdir()) == []


def test_a_disk_without_room_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(InputError, match=r"^--cache-dir .* has no room for .* GiB") as refused:
        make("disk", tmp_path)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_auto_goes_to_disk_when_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_bytes = 4 * 6 * 5 * 4
    monkeypatch.setattr(context_store, "free_memory", lambda: 2 * num_bytes)
    assert make("auto", tmp_path).place == "device"
    assert make("auto", tmp_path, num_sharing=2).place == "disk"
    monkeypatch.setattr(context_store, "free_memory", lambda: 2 * num_bytes - 1)
    assert make("auto", tmp_path).place == "disk"


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_zeros_take_no_memory(storage: ContextStorage, tmp_path: Path) -> None:
    gc.collect()
    before = resident_bytes()
    store = ContextStore(
        (1000, 64, 256),
        kept_as=torch.float32,
        like=torch.zeros(1),
        storage=storage,
        folder=tmp_path,
    )
    assert store.rows.nbytes == 65_536_000
    assert resident_bytes() - before < 8_000_000


def phase1(config: Config, data: TokenDataModule) -> FixedPointModule:
    L.seed_everything(config.random_seed, verbose=False)
    module = FixedPointModule(config, data.vocab_size)
    fit_phase(module, data, config=config, num_epochs=3, logger=NO_LOGGER, callbacks=[])
    return module


def weights(module: L.LightningModule) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("memory", ["residual", "gated"])
def test_the_place_changes_no_number(
    memory: str, tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    trained = []
    for storage in STORAGES:
        config = dataclasses.replace(tiny_config, context_storage=storage, memory=memory)
        module = phase1(config, tiny_data)
        second = TokenPredictionModule.from_phase1(module, tiny_data.vocab_size)
        fit_phase(second, tiny_data, config=config, num_epochs=2, logger=NO_LOGGER, callbacks=[])
        trained.append((weights(module), weights(second)))
    for first, second_phase in trained[1:]:
        assert torch.equal(first, trained[0][0])
        assert torch.equal(second_phase, trained[0][1])


def test_bfloat16_is_close_and_not_the_same(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    whole = weights(phase1(tiny_config, tiny_data))
    short = weights(phase1(dataclasses.replace(tiny_config, context_dtype="bfloat16"), tiny_data))
    untrained = weights(
        phase1(dataclasses.replace(tiny_config, phase1_learning_rate=1e-30), tiny_data)
    )
    assert not torch.equal(whole, short)
    assert (whole - short).norm() < 0.1 * (whole - untrained).norm()
