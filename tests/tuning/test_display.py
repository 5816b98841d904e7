"""What is shown of a phase, whatever of it has been measured."""

import pytest
import torch

from lightning_modules import metric_names as names
from tuning.display import describe_phase1

RATIO, RANK, COSINE = (
    names.PHASE1_CONVERGED_RATIO,
    names.PHASE1_EFFECTIVE_RANK,
    names.PHASE1_CONTEXT_COSINE,
)


@pytest.mark.parametrize(
    ("measured", "text"),
    [
        ({}, "no sweep validated"),
        ({RATIO: 0.125}, "converged 12.5%"),
        ({RATIO: 0.125, RANK: 12.0}, "effective rank 12.0/16 (75.0%), converged 12.5%"),
        ({COSINE: 0.5}, "|cos| 0.500"),
        (
            {COSINE: 0.5, RATIO: 1.0, RANK: 12.0},
            "effective rank 12.0/16 (75.0%), converged 100.0%, |cos| 0.500",
        ),
    ],
)
def test_a_stopped_sweep_shows_what_it_has(measured: dict[str, float], text: str) -> None:
    metrics = {name: torch.tensor(value) for name, value in measured.items()}
    assert describe_phase1(metrics, context_dim=16) == text
