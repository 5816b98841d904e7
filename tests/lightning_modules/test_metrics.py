"""Metrics over batches equal those of all data at once."""

import pytest
import torch

from config import LrSchedule
from lightning_modules import metrics
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


@pytest.mark.parametrize(
    ("schedule", "half", "end"),
    [
        ("cosine", 0.5, 0.0),
        ("linear", 0.5, 0.0),
        ("constant", 1.0, 1.0),
        ("inverse_sqrt", (20 / 61) ** 0.5, (20 / 101) ** 0.5),
        ("warmup_stable_decay", 1.0, 0.0),
    ],
)
def test_schedules_after_the_same_rise(schedule: LrSchedule, half: float, end: float) -> None:
    factor = with_warmup(schedule, 100, 0.2)
    assert [factor(step) for step in (0, 9, 19)] == pytest.approx([0.05, 0.5, 1.0])
    assert factor(60) == pytest.approx(half)
    assert factor(100) == pytest.approx(end, abs=1e-12)
    falling = [factor(step) for step in range(20, 101)]
    assert falling == sorted(falling, reverse=True)


def test_warmup_stable_decay_falls_in_the_last_fifth() -> None:
    factor = with_warmup("warmup_stable_decay", 100, 0.1)
    assert {factor(step) for step in range(10, 81)} == {1.0}
    assert factor(90) == pytest.approx(0.5)


def test_sums_of_an_epochs_part_are_taken_over() -> None:
    whole, before, after = (WeightedMean(2) for _ in range(3))
    for metric in (whole, before):
        metric.update(torch.tensor([1.0, 4.0]), 3)
    after.restore_sums(before.sums_of_ranks(), 0)
    for metric in (whole, after):
        metric.update(torch.tensor([2.0, 1.0]), 1)
    assert torch.equal(whole.compute(), after.compute())


@pytest.mark.parametrize(("num_before", "num_after"), [(1, 1), (2, 2), (1, 2), (2, 1), (2, 3)])
def test_sums_are_taken_over_by_any_number_of_processes(
    num_before: int, num_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [WeightedMean() for _ in range(num_before)]
    for index, part in enumerate(parts):
        part.update(10.0 + index, weight=index + 1)
    sums = torch.cat([part.sums_of_ranks() for part in parts])
    monkeypatch.setattr(metrics, "num_ranks", lambda: num_after)
    after = [WeightedMean() for _ in range(num_after)]
    for rank, metric in enumerate(after):
        metric.restore_sums(sums, rank)
    together = torch.stack([torch.stack([m.weighted_sum, m.weight_sum]) for m in after]).sum(dim=0)
    assert torch.equal(together, sums.sum(dim=0))


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
