"""Sweeps and the trajectory: causality, exactness, and that one is the other's fixed point."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.context_network import ContextNetwork
from models.fixed_point import Method, solve, solve_rows
from models.sweeps import residuals, shift_right, sweep

TINY = 1e-200
"""A tolerance that only an exact fixed point is below."""


class Expanding:
    """Triples its context: far from a contraction."""

    context_dim = 4

    def __call__(self, contexts: Tensor, embeddings: Tensor, /) -> Tensor:
        return 3 * contexts + embeddings


class Halving:
    """Halves the distance of two contexts at every token."""

    context_dim = 4

    def __call__(self, contexts: Tensor, embeddings: Tensor, /) -> Tensor:
        return 0.5 * contexts + embeddings


def make_network(
    context_dim: int = 8, embed_dim: int = 6, num_layers: int = 2, seed: int = 0
) -> ContextNetwork:
    torch.manual_seed(seed)
    return ContextNetwork(
        vocab_size=13,
        context_dim=context_dim,
        embed_dim=embed_dim,
        num_layers=num_layers,
        update_scale=0.5,
    ).double()


def random_embeddings(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def token_by_token(network: ContextNetwork, embeddings: Tensor) -> Tensor:
    contexts = torch.zeros(len(embeddings), network.context_dim, dtype=torch.float64)
    steps = []
    for position in range(embeddings.shape[1]):
        contexts = network(contexts, embeddings[:, position])
        steps.append(contexts)
    return torch.stack(steps, dim=1).detach()


shapes = {
    "num_rows": st.integers(1, 3),
    "num_positions": st.integers(1, 6),
    "context_dim": st.integers(2, 7),
    "embed_dim": st.integers(2, 7),
    "num_layers": st.integers(1, 3),
    "seed": st.integers(0, 1000),
}


@settings(max_examples=15, deadline=None)
@given(**shapes)
def test_both_methods_give_the_trajectory_and_it_is_a_fixed_point(
    num_rows: int, num_positions: int, context_dim: int, embed_dim: int, num_layers: int, seed: int
) -> None:
    network = make_network(context_dim, embed_dim, num_layers, seed)
    embeddings = network.embed(torch.randint(13, (num_rows, num_positions)))
    expected = token_by_token(network, embeddings)
    for method in ("scan", "sweeps"):
        result = solve(network, embeddings, tolerance=TINY, max_sweeps=num_positions, method=method)
        torch.testing.assert_close(result.contexts, expected)
        assert result.converged
        assert result.method == method
        swept = sweep(network, result.contexts, embeddings)
        torch.testing.assert_close(swept, result.contexts)


@pytest.mark.parametrize("num_sweeps", [1, 3, 6])
def test_first_positions_are_exact_after_as_many_sweeps(num_sweeps: int) -> None:
    embeddings = random_embeddings(2, 7, 4)
    exact = solve(Expanding(), embeddings, tolerance=1.0, max_sweeps=1, method="scan").contexts
    result = solve(Expanding(), embeddings, tolerance=TINY, max_sweeps=num_sweeps, method="sweeps")
    assert result.num_sweeps == num_sweeps
    torch.testing.assert_close(result.contexts[:, :num_sweeps], exact[:, :num_sweeps])
    errors = (result.contexts - exact)[:, num_sweeps:].abs().amax(dim=-1)
    assert (errors > 1e-3).all()


@pytest.mark.parametrize(("method", "max_sweeps"), [("scan", 1), ("sweeps", 3), ("sweeps", 8)])
@pytest.mark.parametrize("position", [0, 4, 7])
def test_token_changes_no_context_before_it(method: Method, max_sweeps: int, position: int) -> None:
    network = make_network()
    tokens = torch.randint(12, (2, 8))
    changed = tokens.clone()
    changed[:, position] = 12
    before, after = (
        solve(
            network, network.embed(text), tolerance=TINY, max_sweeps=max_sweeps, method=method
        ).contexts
        for text in (tokens, changed)
    )
    torch.testing.assert_close(after[:, :position], before[:, :position], rtol=0, atol=1e-12)
    assert (after[:, position] - before[:, position]).abs().max() > 1e-3


def test_rows_do_not_see_each_other() -> None:
    network = make_network()
    embeddings = random_embeddings(3, 5, 6)
    alone = solve(network, embeddings[1:2], tolerance=TINY, max_sweeps=5).contexts
    together = solve(network, embeddings, tolerance=TINY, max_sweeps=5).contexts
    torch.testing.assert_close(together[1:2], alone)


@pytest.mark.parametrize("method", ["scan", "sweeps"])
@pytest.mark.parametrize("cut", [1, 4])
def test_two_chunks_are_one_piece(method: Method, cut: int) -> None:
    network = make_network()
    embeddings = random_embeddings(2, 7, 6)
    whole = solve(network, embeddings, tolerance=TINY, max_sweeps=7, method=method).contexts
    first = solve(
        network, embeddings[:, :cut], tolerance=TINY, max_sweeps=7, method=method
    ).contexts
    second = solve(
        network,
        embeddings[:, cut:],
        tolerance=TINY,
        max_sweeps=7,
        method=method,
        initial=first[:, -1],
    ).contexts
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)


def test_sweep_reads_the_left_neighbour() -> None:
    network = make_network()
    contexts, embeddings = random_embeddings(2, 5, 8), random_embeddings(2, 5, 6)
    initial = random_embeddings(2, 8)
    swept = sweep(network, contexts, embeddings, initial)
    torch.testing.assert_close(swept[:, 0], network(initial, embeddings[:, 0]))
    for position in range(1, 5):
        expected = network(contexts[:, position - 1], embeddings[:, position])
        torch.testing.assert_close(swept[:, position], expected)


def test_shift_right_starts_with_zeros() -> None:
    contexts = random_embeddings(2, 3, 4)
    shifted = shift_right(contexts)
    assert shifted[:, 0].count_nonzero() == 0
    assert torch.equal(shifted[:, 1:], contexts[:, :-1])


def test_residual_is_the_mean_square_change() -> None:
    contexts = torch.zeros(1, 2, 4)
    swept = torch.tensor([[[0.0, 0.0, 0.0, 2.0], [3.0, 3.0, -3.0, 3.0]]])
    assert residuals(contexts, swept).tolist() == [[1.0, 9.0]]


def test_trace_is_the_mean_residual_of_each_sweep() -> None:
    embeddings = random_embeddings(2, 6, 4)
    result = solve(Halving(), embeddings, tolerance=TINY, max_sweeps=3, method="sweeps")
    contexts, expected = torch.zeros_like(embeddings), []
    for _ in range(3):
        swept = sweep(Halving(), contexts, embeddings)
        expected.append((swept - contexts).square().mean())
        contexts = swept
    torch.testing.assert_close(result.residual_trace, torch.stack(expected))


def test_contraction_converges_in_few_sweeps() -> None:
    embeddings = random_embeddings(2, 200, 4)
    result = solve(Halving(), embeddings, tolerance=1e-8, max_sweeps=200, method="sweeps")
    assert result.converged
    assert result.num_sweeps == len(result.residual_trace) < 40
    last = residuals(result.contexts, sweep(Halving(), result.contexts, embeddings))
    assert last.max() < 1e-8
    exact = solve(Halving(), embeddings, tolerance=1.0, max_sweeps=1, method="scan").contexts
    torch.testing.assert_close(result.contexts, exact, rtol=0, atol=1e-2)


def test_expanding_network_has_not_converged_before_all_sweeps() -> None:
    embeddings = random_embeddings(2, 12, 4)
    short = solve(Expanding(), embeddings, tolerance=1e-2, max_sweeps=11, method="sweeps")
    assert not short.converged
    assert short.num_sweeps == 11
    assert short.residual_trace[-1] > short.residual_trace[0]
    full = solve(Expanding(), embeddings, tolerance=1e-2, max_sweeps=99, method="sweeps")
    assert full.converged
    assert full.num_sweeps == 12


def test_one_unsettled_position_is_not_converged() -> None:
    embeddings = torch.zeros(1, 8, 4, dtype=torch.float64)
    embeddings[0, 0] = 1.0
    result = solve(Halving(), embeddings, tolerance=0.2, max_sweeps=1, method="sweeps")
    assert result.residual_trace[0] < 0.2
    assert not result.converged


@pytest.mark.parametrize("method", ["scan", "sweeps"])
def test_contexts_that_are_not_finite_have_not_converged(method: Method) -> None:
    embeddings = random_embeddings(1, 3, 4)
    embeddings[0, 1, 0] = float("nan")
    result = solve(Expanding(), embeddings, tolerance=1.0, max_sweeps=9, method=method)
    assert not result.converged


@pytest.mark.parametrize("method", ["scan", "sweeps"])
def test_solving_builds_no_gradient(method: Method) -> None:
    network = make_network()
    embeddings = network.embed(torch.randint(13, (2, 4)))
    assert embeddings.requires_grad
    result = solve(network, embeddings, tolerance=TINY, max_sweeps=4, method=method)
    assert not result.contexts.requires_grad
    assert not result.residual_trace.requires_grad


def test_a_sweep_has_a_gradient() -> None:
    network = make_network()
    contexts = random_embeddings(2, 4, 8)
    swept = sweep(network, contexts, network.embed(torch.randint(13, (2, 4))))
    (swept * random_embeddings(2, 4, 8)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_auto_takes_the_method_by_the_number_of_rows() -> None:
    network = make_network()
    many = solve(network, random_embeddings(64, 3, 6), tolerance=1.0, max_sweeps=3)
    one = solve(network, random_embeddings(1, 3, 6), tolerance=1.0, max_sweeps=3)
    assert (many.method, one.method) == ("scan", "sweeps")
    assert many.num_sweeps == 0
    assert len(many.residual_trace) == 0


@pytest.mark.parametrize("num_rows", [2, 16])
def test_solve_rows_gives_the_trajectory(num_rows: int) -> None:
    network = make_network()
    embeddings = random_embeddings(num_rows, 9, 6)
    expected = token_by_token(network, embeddings)
    torch.testing.assert_close(solve_rows(network, embeddings), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("method", ["auto", "scan", "sweeps"])
@pytest.mark.parametrize(
    ("shape", "tolerance", "max_sweeps"),
    [
        ((2, 3, 6), 1e-2, 0),
        ((2, 3, 6), 1e-2, -1),
        ((2, 3, 6), 0.0, 3),
        ((2, 3, 6), -1.0, 3),
        ((2, 3, 6), float("nan"), 3),
        ((0, 3, 6), 1e-2, 3),
        ((2, 0, 6), 1e-2, 3),
    ],
)
def test_impossible_requests_are_refused(
    shape: tuple[int, ...], tolerance: float, max_sweeps: int, method: Method
) -> None:
    with pytest.raises(ValueError, match=r"max_sweeps|tolerance|hold no position"):
        solve(
            make_network(),
            random_embeddings(*shape),
            tolerance=tolerance,
            max_sweeps=max_sweeps,
            method=method,
        )
