"""Contexts are the same wherever they are kept."""

import dataclasses
import gc
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor

from config import Config, ContextStorage, InputError
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import context_store
from lightning_modules.context_store import ContextStore
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.token_prediction_module import TokenPredictionModule
from tuning.training import NO_LOGGER, fit_phase

SHAPE = (5, 3, 4)
PLACES: tuple[ContextStorage, ...] = ("auto", "device", "memory", "disk")


def store(
    folder: Path, storage: ContextStorage, kept_as: torch.dtype = torch.float32
) -> ContextStore:
    return ContextStore(
        SHAPE, kept_as=kept_as, like=torch.zeros(1), storage=storage, folder=folder / "new"
    )


@pytest.mark.parametrize("storage", PLACES)
def test_rows_are_zeros_until_they_are_written(tmp_path: Path, storage: ContextStorage) -> None:
    kept = store(tmp_path, storage)
    assert torch.equal(kept[torch.arange(5)], torch.zeros(SHAPE))
    written = torch.randn(2, 3, 4)
    kept[torch.tensor([3, 1])] = written
    assert torch.equal(kept[torch.tensor([1, 3])], written.flip(0))
    assert kept[torch.tensor([0, 2, 4])].count_nonzero() == 0
    everything = torch.randn(SHAPE)
    kept.fill(everything)
    assert torch.equal(kept[torch.arange(5)], everything)


def test_bfloat16_rounds_and_comes_back_in_the_type_that_is_computed_with(tmp_path: Path) -> None:
    kept = store(tmp_path, "disk", torch.bfloat16)
    written = torch.randn(5, 3, 4)
    kept[torch.arange(5)] = written
    read = kept[torch.arange(5)]
    assert read.dtype == torch.float32
    assert torch.equal(read, written.bfloat16().float())
    assert kept.rows.nbytes == 5 * 3 * 4 * 2


def test_a_file_leaves_nothing_behind(tmp_path: Path) -> None:
    kept = store(tmp_path, "disk")
    assert kept.place == "disk"
    kept[torch.arange(5)] = torch.randn(SHAPE)
    assert list((tmp_path / "new").iterdir()) == []
    del kept
    gc.collect()
    assert list((tmp_path / "new").iterdir()) == []


def test_auto_goes_to_disk_where_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_bytes = 5 * 3 * 4 * 4
    monkeypatch.setattr(context_store, "free_memory", lambda: 2 * num_bytes)
    assert store(tmp_path, "auto").place == "device"
    monkeypatch.setattr(context_store, "free_memory", lambda: 2 * num_bytes - 1)
    assert store(tmp_path, "auto").place == "disk"


def test_a_disk_without_room_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--cache-dir .* has no room for .* GiB of contexts"):
        ContextStore(
            (2**30, 2**10, 2**10),
            kept_as=torch.float32,
            like=torch.zeros(1),
            storage="disk",
            folder=tmp_path,
        )
    assert list(tmp_path.iterdir()) == []


def trained(config: Config, data: TokenDataModule) -> tuple[Tensor, float]:
    """Phase 1's weights and Phase 2's last `val_ppl`."""
    L.seed_everything(0, verbose=False)
    phase1 = FixedPointModule(config, data.vocab_size)
    fit_phase(phase1, data, config=config, num_epochs=3, logger=NO_LOGGER, callbacks=[])
    phase2 = TokenPredictionModule.from_phase1(phase1, data.vocab_size)
    trainer = fit_phase(phase2, data, config=config, num_epochs=1, logger=NO_LOGGER, callbacks=[])
    weights = torch.cat([p.detach().flatten() for p in phase1.network.layers.parameters()])
    return weights, float(trainer.callback_metrics["val_ppl"])


def test_the_place_changes_no_number_and_bfloat16_hardly_any(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    results = {
        storage: trained(dataclasses.replace(tiny_config, context_storage=storage), tiny_data)
        for storage in PLACES
    }
    weights, val_ppl = results["auto"]
    for other_weights, other_val_ppl in results.values():
        assert torch.equal(weights, other_weights)
        assert val_ppl == other_val_ppl
    config = dataclasses.replace(tiny_config, context_storage="disk", context_dtype="bfloat16")
    rounded_weights, rounded_val_ppl = trained(config, tiny_data)
    assert not torch.equal(weights, rounded_weights)
    torch.testing.assert_close(rounded_weights, weights, rtol=0, atol=1e-2)
    assert rounded_val_ppl == pytest.approx(val_ppl, rel=1e-2)
