"""What is compiled computes the same, and a batch that is smaller is not compiled for."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.full_batches import FullBatches
from lightning_modules.token_prediction_module import TokenPredictionModule
from tuning.training import NO_LOGGER, fit_phase

COMPILE = torch.compile


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Callable[..., Any]]:
    """What was given to the compiler, which traces it and makes no code of it."""
    functions: list[Callable[..., Any]] = []

    def compile_eagerly(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        functions.append(function)
        return COMPILE(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    torch.compiler.reset()
    return functions


def test_a_smaller_batch_goes_through_the_function_itself() -> None:
    shapes = []

    def double(batch: Tensor) -> Tensor:
        shapes.append(batch.shape)
        return 2 * batch

    full = FullBatches(double)
    full.compiled = lambda batch: 3 * batch  # type: ignore[assignment]
    assert [full(torch.ones(size)).sum() for size in (4, 4, 1, 4)] == [12, 12, 2, 12]
    assert shapes == [torch.Size([1])]


@pytest.mark.parametrize("freeze_context", [True, False])
def test_both_phases_train_alike_when_compiled(
    freeze_context: bool, tiny_config: Config, tiny_data: TokenDataModule, compiled: list[Any]
) -> None:
    config = dataclasses.replace(tiny_config, freeze_context=freeze_context, dropout=0.0)

    def trained(is_compiled: bool) -> TokenPredictionModule:
        torch.manual_seed(0)
        phase1 = FixedPointModule(config, tiny_data.vocab_size)
        if is_compiled:
            phase1.compile_steps()
        fit(phase1, num_epochs=2)
        phase2 = TokenPredictionModule.from_phase1(phase1, tiny_data.vocab_size)
        if is_compiled:
            phase2.compile_steps()
        fit(phase2, num_epochs=1)
        return phase2

    def fit(module: Any, num_epochs: int) -> None:
        fit_phase(
            module, tiny_data, config=config, num_epochs=num_epochs, logger=NO_LOGGER, callbacks=[]
        )

    expected = trained(is_compiled=False).state_dict()
    assert not compiled
    found = trained(is_compiled=True).state_dict()
    assert [function.__name__ for function in compiled] == [
        "_call_impl", "_loss_of_sweep", "_call_impl", "_loss_of_tokens"
    ]  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
