"""Muon and AdamW as one: which weights are whose, the step of each, and going on from a checkpoint."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR

from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.optimizers import MuonWithAdamW, Part, phase2_optimizer
from lightning_modules.token_prediction_module import TokenPredictionModule
from tuning.training import NO_LOGGER, fit_phase

NUM_TOKENS, WIDTH = 11, 6


class Model(nn.Module):
    """An embedding, two layers, one of them frozen, and a matrix of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_TOKENS, WIDTH)
        self.layer = nn.Linear(WIDTH, 2 * WIDTH)
        self.own = nn.Parameter(torch.randn(2 * WIDTH, WIDTH))
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = torch.relu(self.layer(self.embedding(tokens))) @ self.own
        return self.frozen(hidden) @ self.embedding.weight.T


def step(model: Model, optimizer: torch.optim.Optimizer, first: int = 0) -> None:
    tokens = torch.arange(first, first + 2 * WIDTH) % NUM_TOKENS
    model.zero_grad()
    nn.functional.cross_entropy(model(tokens), (tokens + 1) % NUM_TOKENS).backward()
    optimizer.step()


def one_of(model: Model, rate: float = 0.1) -> MuonWithAdamW:
    made = phase2_optimizer("muon", [Part(model, rate)], weight_decay=0.5)
    assert isinstance(made, MuonWithAdamW)
    return made


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def test_a_step_is_that_of_pytorchs_own_two() -> None:
    model = Model()
    other = copy.deepcopy(model)
    together = one_of(model)
    muon = Muon(
        [other.own, other.layer.weight], lr=0.1, weight_decay=0.5,
        adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip
    adamw = AdamW(
        [
            {"params": [other.embedding.weight], "weight_decay": 0.5},
            {"params": [other.layer.bias], "weight_decay": 0.0},
        ],
        lr=0.1, betas=(0.9, 0.99), fused=True,
    )  # fmt: skip
    for first in range(3):
        step(model, together, first)
        step(other, muon, first)
        adamw.step()  # by the same gradients
    assert equal(model, other)


def test_every_direction_of_a_hidden_matrix_takes_a_step_of_about_the_same_size() -> None:
    model = Model()
    before = model.own.detach().clone()
    optimizer = phase2_optimizer("muon", [Part(model, 0.1)], weight_decay=0.0)
    step(model, optimizer)
    sizes = torch.linalg.svdvals(before - model.own.detach())
    # Of AdamW's size: 0.2 times the rate for an entry.
    assert sizes / (0.1 * 0.2 * (2 * WIDTH) ** 0.5) == pytest.approx(1.0, abs=0.5)


def test_a_schedule_and_the_closure_reach_both() -> None:
    model = Model()
    optimizer = one_of(model)
    schedule = LambdaLR(optimizer, lambda count: 0.0 if count else 1.0)
    step(model, optimizer)
    schedule.step()
    before = copy.deepcopy(model)

    def closure() -> Tensor:
        loss = model(torch.arange(4)).square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() > 0
    assert equal(model, before), "the rate is 0 for all"


def test_a_state_that_is_saved_and_loaded_goes_on_to_the_last_bit() -> None:
    model = Model()
    optimizer = one_of(model)
    for first in range(2):
        step(model, optimizer, first)
    weights, state = copy.deepcopy(model), copy.deepcopy(optimizer.state_dict())
    again = one_of(weights)
    again.load_state_dict(state)
    for first in range(2, 4):
        step(model, optimizer, first)
        step(weights, again, first)
    assert equal(model, weights)
    fresh = one_of(copy.deepcopy(model))
    assert fresh.state_dict()["state"] == {}


@pytest.mark.parametrize("freeze_context", [True, False])
def test_embeddings_convolutions_and_biases_are_adamws(
    tiny_config: Config, tiny_data: TokenDataModule, *, freeze_context: bool
) -> None:
    config = dataclasses.replace(
        tiny_config, phase2_optimizer="muon", freeze_context=freeze_context,
        share_embedding=False, attention_window=4, convolution_kernel=2, copy_window=4,
    )  # fmt: skip
    phase1 = FixedPointModule(config, tiny_data.vocab_size)
    module = TokenPredictionModule.from_phase1(phase1, tiny_data.vocab_size)
    trainer = fit_phase(
        module, tiny_data, config=config, num_epochs=1, logger=NO_LOGGER, callbacks=[]
    )
    names = {id(weight): name for name, weight in module.named_parameters()}
    groups = trainer.optimizers[0].param_groups
    muons = {
        names[id(weight)] for group in groups if "ns_steps" in group for weight in group["params"]
    }
    others = {
        names[id(weight)] for group in groups if "betas" in group for weight in group["params"]
    }
    trained = {name for name, weight in module.named_parameters() if weight.requires_grad}
    assert muons | others == trained
    assert not muons & others
    assert {"head.hidden.weight", "head.attention.blocks.0.inner.weight"} <= muons
    assert ("network.layers.0.context_weight" in muons) != freeze_context
    kept = [name for name in trained if "embedding" in name or "convolution" in name]
    assert len(kept) >= 3
    assert set(kept) <= others
    assert {name for name in trained if name.endswith("bias")} <= others


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_matrices_decay_and_each_part_has_its_rate(kind: str) -> None:
    model, other = Model(), Model()
    parts = [Part(model, 0.1), Part(other, 0.2)]
    groups = phase2_optimizer(kind, parts, weight_decay=0.5).param_groups  # type: ignore[arg-type]
    for group in groups:
        assert len({weight.ndim for weight in group["params"]}) == 1
        assert group["weight_decay"] == (0.5 if group["params"][0].ndim == 2 else 0.0)
    for part, expected in zip(parts, (0.1, 0.2), strict=True):
        own = set(map(id, part.module.parameters()))
        rates = {g["lr"] for g in groups if own & set(map(id, g["params"]))}
        assert rates == {expected}
