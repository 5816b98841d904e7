"""The bare loop that Phase 1 is measured against computes what the module does."""

import dataclasses

import pytest

from benchmarks.phase1 import flops, run
from config import Config
from datamodules.token_datamodule import TokenDataModule


@pytest.mark.parametrize("fields", [{}, {"contraction_weight": 0.0}, {"gradient_clip": 0.0}])
def test_both_contenders_end_with_the_same_weights(
    tiny_data: TokenDataModule, fields: dict[str, float]
) -> None:
    config = dataclasses.replace(
        tiny_data.config, phase1_max_epochs=4, phase1_min_converged_ratio=1.0, **fields
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
    assert flops(dataclasses.replace(config, contraction_weight=0.0)).contraction == 0
