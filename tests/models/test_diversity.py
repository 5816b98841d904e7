"""Running statistics and the diversity losses: values against numpy, and where gradients flow.

Contexts come as (N, C) here and go in as sequences of one, unless a test is about sequences.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from models.diversity import (
    DIVERSITY_LOSSES,
    ContextStatistics,
    RunningStatistics,
    covariance_distance,
    dispersion,
    log_det_distance,
    variance_covariance,
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


def known(covariance: Tensor) -> ContextStatistics:
    """Statistics of infinitely many contexts around zero."""
    zero = covariance.new_zeros(())
    return ContextStatistics(covariance.new_zeros(len(covariance)), covariance, zero, zero)


def take_in(statistics: RunningStatistics, contexts: Tensor) -> ContextStatistics:
    taken: ContextStatistics = statistics(contexts.unsqueeze(1))
    return taken


def loss_and_gradient(statistics: RunningStatistics, contexts: Tensor) -> tuple[Tensor, Tensor]:
    contexts = contexts.clone().requires_grad_()
    loss = log_det_distance(take_in(statistics, contexts))
    loss.backward()
    assert contexts.grad is not None
    return loss.detach(), contexts.grad


@pytest.mark.parametrize("name", DIVERSITY_LOSSES)
def test_white_contexts_have_value_0(name: str) -> None:
    value = DIVERSITY_LOSSES[name](known(torch.eye(6, dtype=torch.float64)))
    assert value.item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", ["covariance", "variance_covariance", "dispersion"])
def test_collapse_onto_a_point_has_value_1(name: str) -> None:
    value = DIVERSITY_LOSSES[name](known(torch.zeros(6, 6, dtype=torch.float64)))
    assert value.item() == pytest.approx(1, abs=0.02)


def test_value_is_the_squared_distance_from_the_identity() -> None:
    covariance = torch.from_numpy(np.cov(np.random.default_rng(0).normal(size=(5, 40))))
    expected = np.linalg.norm(covariance.numpy() - np.eye(5)) ** 2 / 5
    assert covariance_distance(known(covariance)).item() == pytest.approx(expected)


def test_variance_covariance_is_that_of_vicreg() -> None:
    covariance = np.cov(np.random.default_rng(0).normal(size=(5, 40)))
    variance = covariance.diagonal()
    off_diagonal = (covariance**2).sum() - (variance**2).sum()
    expected = np.maximum(0, 1 - np.sqrt(variance + 1e-4)).mean() + off_diagonal / 5
    value = variance_covariance(known(torch.from_numpy(covariance)))
    assert value.item() == pytest.approx(expected)


def test_dispersion_is_the_distance_from_the_mean() -> None:
    contexts = random_contexts(30, 5, seed=1)
    distance = np.linalg.norm(contexts.numpy() - contexts.numpy().mean(axis=0))
    value = dispersion(take_in(make_statistics(5, 0.9), contexts))
    assert value.item() == pytest.approx(1 - distance / (30 * 5) ** 0.5, abs=1e-4)


@pytest.mark.parametrize("momentum", MOMENTA)
def test_one_batch_is_numpys_mean_and_covariance(momentum: float) -> None:
    contexts = random_contexts(30, 5, seed=1)
    mean, covariance, *_ = take_in(make_statistics(5, momentum), contexts)
    np.testing.assert_allclose(mean, contexts.numpy().mean(axis=0))
    np.testing.assert_allclose(covariance, np.cov(contexts.numpy().T, bias=True), atol=1e-9)


def test_long_memory_is_the_covariance_of_all_data() -> None:
    """Batches of one context a dimension; 64 a dimension are the longest memory."""
    batches = [random_contexts(4, 4, seed) for seed in range(6)]
    statistics = make_statistics(4, 1 - 1e-6)
    for batch in batches:
        mean, covariance, *_ = take_in(statistics, batch)
    everything = torch.cat(batches).numpy()
    weights = np.repeat((1 - 1 / 64) ** np.arange(5.0, -1, -1), 4)
    np.testing.assert_allclose(mean, np.average(everything, axis=0, weights=weights))
    expected = np.cov(everything.T, ddof=0, aweights=weights)
    np.testing.assert_allclose(covariance, expected, atol=1e-9)


@pytest.mark.parametrize("batch_size", [2, 16, 128])
@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
def test_window_is_counted_in_contexts(momentum: float, batch_size: int) -> None:
    """Of what came before, e^-8 at most is left after 8 longest windows, and under any momentum and
    batch at least a fifth after the shortest."""
    statistics = make_statistics(4, momentum)
    take_in(statistics, torch.full((10_000, 4), 1.0, dtype=torch.float64))
    left = []
    for _ in range(8 * 64 * 4 // batch_size):
        left.append(take_in(statistics, torch.zeros(batch_size, 4, dtype=torch.float64)).mean[0])
    assert left[-1] < 2 * np.exp(-8)
    shortest = 8 * 4 // batch_size
    if shortest > 0:
        assert left[shortest - 1] > 0.2


def test_averages_forget_at_the_rate_of_the_momentum() -> None:
    batches = [random_contexts(20, 4, seed) for seed in range(4)]
    statistics = make_statistics(4, 0.8)
    for batch in batches:
        mean, covariance, *_ = take_in(statistics, batch)
    weights = 0.8 ** np.arange(3, -1, -1)
    weights /= weights.sum()
    first = sum(w * b.numpy().mean(axis=0) for w, b in zip(weights, batches, strict=True))
    second = sum(w * b.numpy().T @ b.numpy() / 20 for w, b in zip(weights, batches, strict=True))
    np.testing.assert_allclose(mean, first)
    np.testing.assert_allclose(covariance, second - np.outer(first, first), atol=1e-9)


def test_small_batches_make_up_a_full_rank_together() -> None:
    statistics = make_statistics(6, 0.99)
    for part in white_contexts(6).split(3):
        covariance = take_in(statistics, part).covariance
    assert torch.linalg.matrix_rank(covariance, rtol=1e-6) == 6


def test_gradient_flows_at_high_momentum() -> None:
    _, gradient = loss_and_gradient(make_statistics(5, 0.99), random_contexts(30, 5, seed=1))
    assert gradient.norm() > 1e-3


@pytest.mark.parametrize("momentum", MOMENTA)
def test_first_gradient_is_that_of_the_batch_alone(momentum: float) -> None:
    contexts = random_contexts(30, 5, seed=2).requires_grad_()
    second = contexts.T @ contexts / 30
    (-torch.logdet(second + 0.05 * torch.eye(5)) / 5).backward()
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


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_gradient_is_taken_at_the_averages_and_applied_to_the_batch(momentum: float) -> None:
    old, new = random_contexts(30, 5, seed=0), random_contexts(20, 5, seed=1)
    statistics = make_statistics(5, momentum)
    take_in(statistics, old)
    _, gradient = loss_and_gradient(statistics, new)

    batch = new.clone().requires_grad_()
    average = (momentum * old.T @ old / 30 + new.T @ new / 20) / (momentum + 1)
    average.requires_grad_()
    loss = -torch.logdet(average + 0.05 * torch.eye(5)) / 5
    (slope,) = torch.autograd.grad(loss, average)
    (slope * (batch.T @ batch / 20)).sum().backward()
    torch.testing.assert_close(gradient, batch.grad)


def test_averages_keep_no_graph() -> None:
    statistics = make_statistics(4, 0.9)
    take_in(statistics, random_contexts(9, 4, seed=0).requires_grad_())
    assert not any(buffer.requires_grad for buffer in statistics.buffers())


def test_statistics_survive_saving() -> None:
    saved, loaded = make_statistics(4, 0.9), make_statistics(4, 0.9)
    take_in(saved, random_contexts(9, 4, seed=0))
    loaded.load_state_dict(saved.state_dict())
    batch = random_contexts(9, 4, seed=1)
    torch.testing.assert_close(take_in(loaded, batch), take_in(saved, batch))


@pytest.mark.parametrize("name", ["covariance", "variance_covariance"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("repeats", [1, 4])
def test_value_has_no_bias_from_few_contexts(name: str, momentum: float, repeats: int) -> None:
    """Of 16 sequences; plain covariances come to (C + 1) / 16 = 0.56 more at momentum 0.

    With repeats, every sequence says the same context several times: what counts is sequences.
    """
    mixing = torch.diag(torch.tensor([1.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.5])).double()
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(400):
        statistics = make_statistics(8, momentum)
        for _ in range(3):
            contexts = torch.randn(16, 8, dtype=torch.float64, generator=generator) @ mixing
            taken = statistics(contexts.unsqueeze(1).repeat(1, repeats, 1))
        values.append(DIVERSITY_LOSSES[name](taken).item())
    expected = DIVERSITY_LOSSES[name](known(mixing @ mixing)).item()
    assert np.mean(values) == pytest.approx(expected, abs=0.06)


def mean_slope(name: str, mixing: Tensor, batch_size: int, momentum: float) -> Tensor:
    """Mean gradient by A over batches of contexts z A, once the averages have filled."""
    generator = torch.Generator().manual_seed(0)
    statistics = make_statistics(len(mixing), momentum)
    slopes = []
    for step in range(8_000 // batch_size + 300):
        matrix = mixing.clone().requires_grad_()
        z = torch.randn(batch_size, len(mixing), dtype=torch.float64, generator=generator)
        loss = DIVERSITY_LOSSES[name](take_in(statistics, z @ matrix))
        if step >= 200:
            slopes.append(torch.autograd.grad(loss, matrix)[0])
    return torch.stack(slopes).mean(dim=0)


@pytest.mark.parametrize("name", ["covariance", "variance_covariance", "log_det"])
@pytest.mark.parametrize("batch_size", [4, 64])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_slope_does_not_depend_on_batch_size_or_momentum(
    name: str, batch_size: int, momentum: float
) -> None:
    """It is that of infinitely many contexts, also where a batch has fewer than dimensions."""
    # No variance near 1, where the hinge of VICReg's is bent.
    mixing = torch.diag(torch.tensor([1.8, 1.6, 1.4, 0.6, 0.5, 0.4])).double()
    mixing = mixing + 0.3 * torch.ones(6, 6, dtype=torch.float64).triu(1)
    matrix = mixing.clone().requires_grad_()
    DIVERSITY_LOSSES[name](known(matrix.T @ matrix)).backward()
    assert matrix.grad is not None
    slope = mean_slope(name, mixing, batch_size, momentum)
    assert (slope - matrix.grad).norm() < 0.12 * matrix.grad.norm()


def test_a_lone_sequence_is_judged_as_it_is() -> None:
    contexts = random_contexts(30, 5, seed=4)
    value = covariance_distance(make_statistics(5, 0.9)(contexts.unsqueeze(0)))
    covariance = np.cov(contexts.numpy().T, bias=True)
    assert value.item() == pytest.approx(np.linalg.norm(covariance - np.eye(5)) ** 2 / 5)


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_collapse_onto_a_point_costs_about_1(noise: float) -> None:
    point = random_contexts(1, 8, seed=5)
    contexts = point + noise * random_contexts(100, 8, seed=6)
    value = covariance_distance(take_in(make_statistics(8, 0.9), contexts))
    assert value.item() >= 0.99


def test_collapse_onto_a_line_costs_all_other_dimensions() -> None:
    line = torch.randn(8, dtype=torch.float64)
    line = line / line.norm() * 8**0.5
    contexts = torch.stack([line, -line])
    value = covariance_distance(take_in(make_statistics(8, 0.9), contexts))
    assert value.item() == pytest.approx(7)


@pytest.mark.parametrize("name", ["covariance", "variance_covariance", "log_det"])
def test_descent_whitens_what_contexts_are_drawn_from(name: str) -> None:
    matrix = (torch.eye(4) + 0.3 * torch.randn(4, 4)).double()
    statistics = make_statistics(4, 0.9)
    first = covariance_distance(known(matrix.T @ matrix))
    for _ in range(800):
        matrix = matrix.detach().requires_grad_()
        contexts = torch.randn(16, 4, dtype=torch.float64) @ matrix
        DIVERSITY_LOSSES[name](take_in(statistics, contexts)).backward()
        assert matrix.grad is not None
        matrix = matrix - 0.01 * matrix.grad
    # The log-determinant grows with the scale, which LayerNorm fixes elsewhere.
    covariance = (matrix.T @ matrix).detach()
    covariance = covariance / covariance.diagonal().mean()
    assert covariance_distance(known(covariance)) < first / 4


def test_log_det_is_0_for_white_contexts_and_the_mean_log_eigenvalue_elsewhere() -> None:
    white = known(torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(log_det_distance(white), torch.zeros((), dtype=torch.float64))
    eigenvalues = torch.tensor([3.0, 1.0, 0.2, 0.0], dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    skew = known(basis @ eigenvalues.diag() @ basis.T)
    expected = -((eigenvalues + 0.05) / 1.05).log().mean()
    torch.testing.assert_close(log_det_distance(skew), expected)


def test_log_det_is_uncentred() -> None:
    mean = torch.tensor([2.0, 0.0], dtype=torch.float64)
    statistics = known(torch.eye(2, dtype=torch.float64))._replace(mean=mean)
    expected = -(torch.tensor([5.05, 1.05], dtype=torch.float64) / 1.05).log().mean()
    torch.testing.assert_close(log_det_distance(statistics), expected)
