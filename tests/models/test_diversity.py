"""Running statistics and the diversity loss: values against numpy, and where gradients flow."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models.diversity import (
    ContextStatistics,
    RunningStatistics,
    covariance_distance,
    log_det_distance,
)

MOMENTA = [0.0, 0.5, 0.9, 0.99, 0.999]


def make_statistics(context_dim: int, momentum: float) -> RunningStatistics:
    return RunningStatistics(context_dim, momentum).double()


def random_contexts(num_contexts: int, context_dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    contexts = torch.randn(num_contexts, context_dim, dtype=torch.float64, generator=generator)
    mixing = torch.randn(context_dim, context_dim, dtype=torch.float64, generator=generator)
    return contexts @ mixing + seed


def white_contexts(context_dim: int) -> Tensor:
    axes = context_dim**0.5 * torch.eye(context_dim, dtype=torch.float64)
    return torch.cat([axes, -axes])


def loss_and_gradient(statistics: RunningStatistics, contexts: Tensor) -> tuple[Tensor, Tensor]:
    contexts = contexts.clone().requires_grad_()
    loss = covariance_distance(statistics(contexts))
    loss.backward()
    assert contexts.grad is not None
    return loss.detach(), contexts.grad


@pytest.mark.parametrize("shift", [0.0, 3.0])
@pytest.mark.parametrize("momentum", MOMENTA)
def test_white_contexts_have_value_0(momentum: float, shift: float) -> None:
    statistics = make_statistics(6, momentum)
    for _ in range(3):
        value = covariance_distance(statistics(white_contexts(6) + shift))
        assert value.item() == pytest.approx(0, abs=1e-9)


def test_value_is_the_squared_distance_from_the_identity() -> None:
    covariance = torch.from_numpy(np.cov(np.random.default_rng(0).normal(size=(5, 40))))
    expected = np.linalg.norm(covariance.numpy() - np.eye(5)) ** 2 / 5
    value = covariance_distance(ContextStatistics(torch.zeros(5), covariance))
    assert value.item() == pytest.approx(expected)


@pytest.mark.parametrize("momentum", MOMENTA)
def test_one_batch_is_numpys_mean_and_covariance(momentum: float) -> None:
    contexts = random_contexts(30, 5, seed=1)
    mean, covariance = make_statistics(5, momentum)(contexts)
    np.testing.assert_allclose(mean, contexts.numpy().mean(axis=0))
    np.testing.assert_allclose(covariance, np.cov(contexts.numpy().T, bias=True), atol=1e-9)


def test_long_memory_is_the_covariance_of_all_data() -> None:
    batches = [random_contexts(20, 4, seed) for seed in range(6)]
    statistics = make_statistics(4, 1 - 1e-6)
    for batch in batches:
        mean, covariance = statistics(batch)
    everything = torch.cat(batches).numpy()
    np.testing.assert_allclose(mean, everything.mean(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(covariance, np.cov(everything.T, bias=True), rtol=1e-3, atol=1e-3)


def test_averages_forget_at_the_rate_of_the_momentum() -> None:
    batches = [random_contexts(20, 4, seed) for seed in range(4)]
    statistics = make_statistics(4, 0.8)
    for batch in batches:
        mean, covariance = statistics(batch)
    weights = 0.8 ** np.arange(3, -1, -1)
    weights /= weights.sum()
    first = sum(w * b.numpy().mean(axis=0) for w, b in zip(weights, batches, strict=True))
    second = sum(w * b.numpy().T @ b.numpy() / 20 for w, b in zip(weights, batches, strict=True))
    np.testing.assert_allclose(mean, first)
    np.testing.assert_allclose(covariance, second - np.outer(first, first), atol=1e-9)


def test_small_batches_make_up_a_full_rank_together() -> None:
    statistics = make_statistics(6, 0.99)
    for part in white_contexts(6).split(3):
        covariance = statistics(part).covariance
    assert torch.linalg.matrix_rank(covariance, rtol=1e-6) == 6


def test_gradient_flows_at_high_momentum() -> None:
    _, gradient = loss_and_gradient(make_statistics(5, 0.99), random_contexts(30, 5, seed=1))
    assert gradient.norm() > 1e-3


@pytest.mark.parametrize("momentum", MOMENTA)
def test_first_gradient_is_that_of_the_batch_alone(momentum: float) -> None:
    contexts = random_contexts(30, 5, seed=2).requires_grad_()
    covariance = torch.cov(contexts.T, correction=0)
    ((covariance - torch.eye(5)).square().sum() / 5).backward()
    _, gradient = loss_and_gradient(make_statistics(5, momentum), contexts.detach())
    torch.testing.assert_close(gradient, contexts.grad)


@pytest.mark.parametrize("momentum", [0.9, 0.99, 0.999])
def test_later_gradient_does_not_shrink_with_the_momentum(momentum: float) -> None:
    statistics = make_statistics(5, momentum)
    contexts = random_contexts(30, 5, seed=3)
    _, first = loss_and_gradient(statistics, contexts)
    for _ in range(4):
        _, later = loss_and_gradient(statistics, contexts)
    torch.testing.assert_close(later, first)


@pytest.mark.parametrize("momentum", [0.5, 0.99])
def test_gradient_is_taken_at_the_averages_and_applied_to_the_batch(momentum: float) -> None:
    old, new = random_contexts(30, 5, seed=0), random_contexts(12, 5, seed=1)
    statistics = make_statistics(5, momentum)
    statistics(old)
    _, gradient = loss_and_gradient(statistics, new)

    batch = new.clone().requires_grad_()
    batch_moments = (batch.mean(dim=0), batch.T @ batch / 12)
    old_moments = (old.mean(dim=0), old.T @ old / 30)
    averages = [
        ((momentum * before + now) / (momentum + 1)).detach().requires_grad_()
        for before, now in zip(old_moments, batch_moments, strict=True)
    ]
    covariance = averages[1] - torch.outer(averages[0], averages[0])
    loss = (covariance - torch.eye(5)).square().sum() / 5
    slopes = torch.autograd.grad(loss, averages)
    sum((s * m).sum() for s, m in zip(slopes, batch_moments, strict=True)).backward()
    torch.testing.assert_close(gradient, batch.grad)


def test_averages_keep_no_graph() -> None:
    statistics = make_statistics(4, 0.9)
    statistics(random_contexts(9, 4, seed=0).requires_grad_())
    assert not any(buffer.requires_grad for buffer in statistics.buffers())


def test_statistics_survive_saving() -> None:
    saved, loaded = make_statistics(4, 0.9), make_statistics(4, 0.9)
    saved(random_contexts(9, 4, seed=0))
    loaded.load_state_dict(saved.state_dict())
    batch = random_contexts(9, 4, seed=1)
    torch.testing.assert_close(loaded(batch), saved(batch))


def test_value_does_not_depend_on_the_number_of_contexts() -> None:
    contexts = random_contexts(30, 5, seed=4)
    once = covariance_distance(make_statistics(5, 0.9)(contexts))
    often = covariance_distance(make_statistics(5, 0.9)(contexts.repeat(7, 1)))
    assert often.item() == pytest.approx(once.item())


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_collapse_onto_a_point_costs_about_1(noise: float) -> None:
    point = random_contexts(1, 8, seed=5)
    contexts = point + noise * random_contexts(100, 8, seed=6)
    assert covariance_distance(make_statistics(8, 0.9)(contexts)).item() >= 0.99


def test_collapse_onto_a_line_costs_all_other_dimensions() -> None:
    line = torch.randn(8, dtype=torch.float64)
    line = line / line.norm() * 8**0.5
    value = covariance_distance(make_statistics(8, 0.9)(torch.stack([line, -line])))
    assert value.item() == pytest.approx(7)


def test_descent_whitens_the_contexts() -> None:
    contexts = random_contexts(40, 4, seed=0) / 4
    first, _ = loss_and_gradient(make_statistics(4, 0.0), contexts)
    for _ in range(200):
        loss, gradient = loss_and_gradient(make_statistics(4, 0.0), contexts)
        contexts = contexts - 2 * gradient
    assert loss < first / 10


def test_log_det_is_0_for_white_contexts_and_the_mean_log_eigenvalue_elsewhere() -> None:
    zeros = torch.zeros(4, dtype=torch.float64)
    white = ContextStatistics(zeros, torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(log_det_distance(white), torch.zeros((), dtype=torch.float64))
    eigenvalues = torch.tensor([3.0, 1.0, 0.2, 0.0], dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    skew = ContextStatistics(zeros, basis @ eigenvalues.diag() @ basis.T)
    expected = -((eigenvalues + 0.05) / 1.05).log().mean()
    torch.testing.assert_close(log_det_distance(skew), expected)


def test_log_det_is_uncentred() -> None:
    mean = torch.tensor([2.0, 0.0], dtype=torch.float64)
    statistics = ContextStatistics(mean, torch.eye(2, dtype=torch.float64))
    expected = -(torch.tensor([5.05, 1.05], dtype=torch.float64) / 1.05).log().mean()
    torch.testing.assert_close(log_det_distance(statistics), expected)
