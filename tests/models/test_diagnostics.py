"""Effective rank against numpy's singular values; identity mappings and blindness by design."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.context_network import ContextNetwork
from models.diagnostics import (
    context_sensitivity,
    effective_rank,
    inspect_mapping,
    memory_length,
    reachable_rank,
)
from models.fixed_point import solve


class Identity:
    """Hands its context back."""

    context_dim = 32

    def __call__(self, contexts: Tensor, embeddings: Tensor, /) -> Tensor:
        return contexts


class TokenOnly:
    """Forgets its context."""

    context_dim = 32

    def __call__(self, contexts: Tensor, embeddings: Tensor, /) -> Tensor:
        return embeddings


class Decaying:
    """Keeps a share of its context, and adds the token."""

    context_dim = 32

    def __init__(self, keep: float) -> None:
        self.keep = keep

    def __call__(self, contexts: Tensor, embeddings: Tensor, /) -> Tensor:
        return self.keep * contexts + (1 - self.keep**2) ** 0.5 * embeddings


def make_network() -> ContextNetwork:
    torch.manual_seed(0)
    return ContextNetwork(
        vocab_size=50, context_dim=32, embed_dim=16, num_layers=1, update_scale=0.5
    )


def trajectory(network: ContextNetwork, num_rows: int) -> tuple[Tensor, Tensor]:
    embeddings = network.embed(torch.randint(50, (num_rows, 20)))
    return solve(network, embeddings, tolerance=1e-9, max_sweeps=20).contexts, embeddings


def rank_by_svd(matrix: Tensor) -> float:
    values = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    shares = values / values.sum()
    shares = shares[shares > 0]
    return math.exp(-(shares * np.log(shares)).sum())


def matrix_with(singular_values: list[float], num_rows: int, num_columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    size = len(singular_values)
    left, right = (
        torch.linalg.qr(torch.randn(n, size, dtype=torch.float64, generator=generator)).Q
        for n in (num_rows, num_columns)
    )
    return left @ torch.diag(torch.tensor(singular_values, dtype=torch.float64)) @ right.T


@pytest.mark.parametrize("num_contexts", [1, 5, 200])
def test_one_vector_repeated_has_rank_1(num_contexts: int) -> None:
    contexts = torch.randn(32).repeat(num_contexts, 1)
    assert effective_rank(contexts) == pytest.approx(1, abs=1e-3)


def test_identity_has_full_rank() -> None:
    assert effective_rank(7 * torch.eye(24)) == pytest.approx(24)


def test_rank_is_not_centred() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 1e-4 * torch.randn(500, 16, dtype=torch.float64, generator=generator)
    collapsed = torch.ones(16, dtype=torch.float64) + noise
    assert effective_rank(collapsed) < 1.1
    assert effective_rank(collapsed - collapsed.mean(dim=0)) > 14


@pytest.mark.parametrize("spectrum", [[1.0, 1.0, 1.0], [8.0, 4.0, 2.0, 1.0], [1.0, 1e-3], [5.0]])
@pytest.mark.parametrize("shape", [(30, 12), (12, 30)])
def test_known_spectra(spectrum: list[float], shape: tuple[int, int]) -> None:
    shares = np.array(spectrum) / sum(spectrum)
    expected = math.exp(-(shares * np.log(shares)).sum())
    assert effective_rank(matrix_with(spectrum, *shape)) == pytest.approx(expected, rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    num_contexts=st.integers(1, 20),
    context_dim=st.integers(1, 20),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_gaussian_rank_is_that_of_numpy(
    num_contexts: int, context_dim: int, seed: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    contexts = scale * torch.randn(num_contexts, context_dim, generator=generator)
    rank = effective_rank(contexts)
    assert rank == pytest.approx(rank_by_svd(contexts), rel=1e-4)
    assert rank == pytest.approx(effective_rank(contexts.T), rel=1e-6)
    assert 1 - 1e-6 <= rank <= min(num_contexts, context_dim) + 1e-6


def test_zeros_have_rank_0() -> None:
    assert effective_rank(torch.zeros(10, 4)) == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_rank_of_what_is_not_finite_is_nan(bad: float) -> None:
    contexts = torch.randn(10, 4)
    contexts[3, 2] = bad
    assert math.isnan(effective_rank(contexts))


@pytest.mark.parametrize(("num_contexts", "percent"), [(1000, 87.1), (1280, 90.8), (6400, 98.4)])
def test_reachable_rank_has_the_known_figures(num_contexts: int, percent: float) -> None:
    assert 100 * reachable_rank(num_contexts, 768) / 768 == pytest.approx(percent, abs=0.2)


@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (1000, 100), (300, 300)])
def test_reachable_rank_is_that_of_a_gaussian_matrix(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    simulated = effective_rank(torch.randn(*shape, generator=generator))
    assert reachable_rank(*shape) == pytest.approx(simulated, rel=0.01)


def test_reachable_rank_grows_with_the_data() -> None:
    ranks = [reachable_rank(n, 100) for n in (20, 50, 100, 200, 1000, 100_000)]
    assert ranks == sorted(ranks)
    assert ranks[0] < 20
    assert ranks[-1] == pytest.approx(100, rel=1e-2)
    assert ranks[-1] < 100


def test_identity_is_found() -> None:
    report = inspect_mapping(Identity(), torch.randn(3, 10, 32), torch.randn(3, 10, 8))
    assert report.context_cosine == pytest.approx(1)
    assert report.token_sensitivity == 0


def test_negated_context_counts_as_identity() -> None:
    contexts = torch.randn(3, 10, 32)
    report = inspect_mapping(lambda c, e: -c, contexts, torch.randn(3, 10, 8))  # type: ignore[arg-type]  # a function has no context_dim, and none is read
    assert report.context_cosine == pytest.approx(1)


def test_network_without_updates_is_an_identity() -> None:
    network = make_network()
    contexts, embeddings = trajectory(network, 3)
    healthy = inspect_mapping(network, contexts, embeddings)
    for layer in network.layers:
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
    frozen = inspect_mapping(network, contexts, embeddings)
    assert frozen.context_cosine > 0.999
    assert frozen.token_sensitivity == 0
    assert healthy.context_cosine < 0.99
    assert healthy.token_sensitivity > 0.05


@pytest.mark.parametrize("num_rows", [1, 3])
def test_blindness_to_tokens_is_found(num_rows: int) -> None:
    network = make_network()
    seeing = inspect_mapping(network, *trajectory(network, num_rows))
    torch.nn.init.zeros_(network.layers[0].token_weight)
    blind = inspect_mapping(network, *trajectory(network, num_rows))
    assert blind.token_sensitivity == 0
    assert seeing.token_sensitivity > 0.05


@pytest.mark.parametrize("num_rows", [1, 4])
def test_network_of_tokens_alone_is_no_identity_and_fully_sensitive(num_rows: int) -> None:
    report = inspect_mapping(
        TokenOnly(), torch.randn(num_rows, 200, 32), torch.randn(num_rows, 200, 32)
    )
    assert report.context_cosine < 0.2
    assert report.token_sensitivity == pytest.approx(1, abs=0.05)


def test_positions_whose_token_stays_do_not_lower_the_sensitivity() -> None:
    contexts, embeddings = torch.randn(2, 50, 32), torch.randn(2, 50, 32)
    embeddings[:, ::2] = 1.0
    assert inspect_mapping(TokenOnly(), contexts, embeddings).token_sensitivity > 0.9


def test_context_is_judged_against_the_one_that_was_read() -> None:
    contexts = torch.randn(1, 1, 32).repeat(1, 2, 1)
    contexts[:, 1] = 0
    contexts[0, 1, 0] = 1.0
    report = inspect_mapping(Identity(), contexts, torch.randn(1, 2, 8))
    assert report.context_cosine == pytest.approx(1)
    late = torch.zeros(1, 2, 32)
    late[0, 0, 0], late[0, 1, 1] = 1.0, 1.0
    assert inspect_mapping(TokenOnly(), late, late).context_cosine == pytest.approx(0)


def test_text_of_one_token_is_refused() -> None:
    with pytest.raises(ValueError, match="1 token"):
        inspect_mapping(Identity(), torch.randn(2, 1, 32), torch.randn(2, 1, 8))


def test_inspection_builds_no_gradient() -> None:
    network = make_network()
    inspect_mapping(network, *trajectory(network, 2))
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("keep", [0.5, 0.8])
def test_sensitivity_fades_at_the_rate_of_the_memory(keep: float) -> None:
    sensitivity = context_sensitivity(Decaying(keep), torch.randn(200, 80, 32))
    assert len(sensitivity) == 60
    expected = (1 - keep**2) ** 0.5 * keep ** torch.arange(10)
    torch.testing.assert_close(sensitivity[:10], expected, rtol=0.1, atol=0)


@pytest.mark.parametrize(("keep", "length"), [(0.5, 5), (0.8, 12), (0.9, 21)])
def test_memory_length_is_where_five_per_cent_are_left(keep: float, length: int) -> None:
    sensitivity = context_sensitivity(Decaying(keep), torch.randn(200, 80, 32))
    assert memory_length(sensitivity) == pytest.approx(length, abs=1)


def test_memory_of_tokens_alone_is_one_token() -> None:
    sensitivity = context_sensitivity(TokenOnly(), torch.randn(40, 20, 32))
    assert sensitivity[0] == pytest.approx(1, abs=0.1)
    assert memory_length(sensitivity) == 1


def test_memory_that_never_fades_has_the_length_that_was_measured() -> None:
    assert memory_length(torch.full((60,), 0.5)) == 60


def test_rows_with_the_same_token_do_not_lower_the_sensitivity() -> None:
    embeddings = torch.randn(4, 20, 32)
    embeddings[1:3, 5] = embeddings[0, 5]
    sensitivity = context_sensitivity(TokenOnly(), embeddings)
    assert sensitivity[0] > 0.7
    assert sensitivity[1:].abs().max() == 0


def test_text_without_a_token_to_swap_is_refused() -> None:
    with pytest.raises(ValueError, match="same token at position 5"):
        context_sensitivity(TokenOnly(), torch.randn(1, 20, 32))


def test_a_trajectory_is_its_own_output() -> None:
    network = make_network()
    contexts, embeddings = trajectory(network, 2)
    given = inspect_mapping(network, contexts, embeddings, contexts)
    computed = inspect_mapping(network, contexts, embeddings)
    assert tuple(given) == pytest.approx(tuple(computed), rel=1e-4)
