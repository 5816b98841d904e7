"""`train.py --test` says ok of a sound model, and finds the faults that it is there for."""

import pytest
import torch
from torch import Tensor

from config import Config
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.token_prediction_module import TokenPredictionModule
from models.token_head import TokenHead
from tuning.self_test import run_checks


def failed(config: Config) -> list[str]:
    return [check.name for check in run_checks(config) if not check.holds]


def test_a_sound_model_passes(tiny_config: Config) -> None:
    checks = list(run_checks(tiny_config))
    assert len(checks) == 8
    assert all(check.holds for check in checks), checks


def test_weights_that_stand_still_are_found(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = FixedPointModule.training_step

    def detached(self: FixedPointModule, *arguments: object) -> Tensor:
        loss = original(self, *arguments)  # type: ignore[arg-type]
        return loss.detach().requires_grad_()

    monkeypatch.setattr(FixedPointModule, "training_step", detached)
    assert failed(tiny_config) == ["Phase 1: the weights move"]


def test_a_leak_from_the_future_is_found(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TokenPredictionModule.forward

    def leaking(self: TokenPredictionModule, tokens: Tensor) -> Tensor:
        logits = original(self, tokens)
        return logits + logits[:, -1:]

    monkeypatch.setattr(TokenPredictionModule, "forward", leaking)
    assert failed(tiny_config) == ["logits are causal: another last token"]


def test_a_loss_that_is_no_number_is_found(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TokenHead, "_mean_nats", lambda self, f, *_: f.sum() * torch.nan)
    assert "Phase 2: the loss is finite" in failed(tiny_config)
