"""Metrics over batches equal those of all data at once."""

import pytest
import torch

from lightning_modules.metrics import EffectiveRank, WeightedMean
from lightning_modules.schedule import with_warmup
from models.diagnostics import effective_rank


def test_rank_over_batches_is_that_of_all_contexts() -> None:
    contexts = torch.randn(6, 20, 8, generator=torch.Generator().manual_seed(0))
    metric = EffectiveRank(8)
    for batch in contexts.split(4):
        metric.update(batch)
    assert float(metric.compute()) == pytest.approx(effective_rank(contexts.flatten(0, 1)))


def test_rank_is_forgotten_at_reset() -> None:
    metric = EffectiveRank(4)
    metric.update(torch.eye(4))
    metric.reset()
    metric.update(torch.ones(5, 4))
    assert float(metric.compute()) == pytest.approx(1.0)


def test_schedule_rises_then_falls_to_nothing() -> None:
    factor = with_warmup("cosine", 100, 0.1)
    factors = [factor(step) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == 1.0
    assert factors[9] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("num_steps", "ratio"), [(1, 0.0), (1, 1.0), (3, 0.1), (10, 1.0)])
def test_schedule_of_few_steps_stays_in_range(num_steps: int, ratio: float) -> None:
    factor = with_warmup("cosine", num_steps, ratio)
    assert all(0 <= factor(step) <= 1 for step in range(num_steps + 2))
    assert factor(0) > 0


def test_weighted_mean_counts_weights_and_hides_no_nan() -> None:
    mean = WeightedMean()
    mean.update(torch.tensor(1.0), 3)
    mean.update(2.0, 1)
    assert float(mean.compute()) == 1.25
    mean.update(torch.tensor(torch.nan), 1)
    assert bool(mean.compute().isnan())


def test_weighted_mean_takes_several_figures_at_once() -> None:
    mean = WeightedMean(2)
    mean.update(torch.tensor([1.0, 4.0]), 3)
    mean.update(torch.tensor([2.0, torch.nan]), 1)
    figures = mean.compute()
    assert float(figures[0]) == 1.25
    assert bool(figures[1].isnan())
