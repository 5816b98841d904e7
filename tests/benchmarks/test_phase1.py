"""The bare loop that Phase 1 is measured against computes what the module does."""

import dataclasses

import pytest

from benchmarks.phase1 import run
from benchmarks.training_step import flops
from config import Config, Memory
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.settings import context_network
from models.solver_cost import count_weights


@pytest.mark.parametrize("fields", [{}, {"contraction_weight": 0.0}, {"gradient_clip": 0.0}])
def test_both_contenders_end_with_the_same_weights(
    tiny_data: TokenDataModule, fields: dict[str, float]
) -> None:
    config = dataclasses.replace(
        tiny_data.config,
        phase1_max_epochs=4,
        phase1_min_converged_ratio=1.0,
        **fields,  # type: ignore[arg-type]  # all are float
    )
    found = run(config, tiny_data)
    assert found.difference == 0
    assert len(found.turns) == 4
    assert all(min(turn.bare, turn.ours, turn.rate) > 0 for turn in found.turns)


def test_flops_of_one_layer_by_hand() -> None:
    config = dataclasses.replace(
        Config(), num_layers=1, context_dim=32, embed_dim=16, contraction_weight=0.1
    )
    found = flops(config)
    assert found.formula == 6 * 48**2
    assert found.exact == (6 - 2) * 32 * 48, "no gradient by the inputs"
    assert found.diversity == 4 * 32**2
    assert found.contraction == found.exact // 16
    assert found.whole_loss == found.exact + found.diversity + found.contraction
    assert flops(dataclasses.replace(config, contraction_weight=0.0)).contraction == 0


@pytest.mark.parametrize("memory", ["residual", "gated"])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_flops_are_of_the_weights_that_there_are(memory: Memory, num_layers: int) -> None:
    config = Config(memory=memory, num_layers=num_layers, context_dim=32, embed_dim=16)
    network = context_network(config, vocab_size=5)
    first = sum(weight.numel() for weight in network.layers[0].parameters() if weight.ndim == 2)
    assert flops(config).exact == 6 * count_weights(network) - 2 * first
