"""The gated context network: its formula, its gates, and what its linear memory is worth."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.fixed_point import solve, solve_rows, with_gradient
from models.gated_network import GatedContextNetwork
from models.sweeps import residuals, sweep

VOCAB_SIZE = 50


def make_network(
    *,
    context_dim: int = 64,
    num_layers: int = 1,
    update_scale: float = 0.5,
    gate_damping: float = 0.5,
    seed: int = 0,
) -> GatedContextNetwork:
    torch.manual_seed(seed)
    network = GatedContextNetwork(
        vocab_size=VOCAB_SIZE,
        context_dim=context_dim,
        embed_dim=32,
        num_layers=num_layers,
        update_scale=update_scale,
        gate_damping=gate_damping,
    ).double()
    network.set_token_counts(1000 / torch.arange(1, VOCAB_SIZE + 1))
    return network


def random_tokens(num_rows: int, num_positions: int) -> Tensor:
    """Tokens as frequent as their counts say."""
    frequency = 1 / torch.arange(1, VOCAB_SIZE + 1)
    return frequency.multinomial(num_rows * num_positions, replacement=True).view(num_rows, -1)


def normalise(vectors: Tensor) -> Tensor:
    centred = vectors - vectors.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()


def test_one_layer_is_the_formula() -> None:
    network = make_network()
    contexts = normalise(torch.randn(3, 64, dtype=torch.float64))
    tokens = torch.tensor([0, 7, 49])
    rotated = torch.cat([contexts[:, -1:], contexts[:, :-1]], dim=1)
    layer = network.layers[0]
    assert isinstance(layer.bias, Tensor)
    embeddings = normalise(network.embedding(tokens))
    weight = torch.cat([layer.context_weight, layer.token_weight], dim=1)
    update = (torch.cat([rotated, embeddings], dim=1) @ weight.T + layer.bias).clamp_min(0)
    expected = normalise(rotated + network.gates()[tokens].unsqueeze(1) * normalise(update))
    actual = network(contexts, network.embed(tokens))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_every_token_writes_the_same_part_of_the_covariance() -> None:
    """Frequency times gate², where a token is frequent; a rare one's gate is at its bound."""
    network = make_network(update_scale=0.7)
    counts = 1000 / torch.arange(1, VOCAB_SIZE + 1, dtype=torch.float64) + 0.25
    frequency = counts / counts.sum()
    kept = network.keep(network.embed(torch.arange(VOCAB_SIZE)))
    gate = (kept.pow(-2) - 1).sqrt()
    rare = frequency < 1 / 64
    assert 0 < rare.sum() < VOCAB_SIZE
    written = (frequency * gate.square())[~rare]
    torch.testing.assert_close(written, torch.full_like(written, 0.7**2 / 64), rtol=1e-4, atol=0)
    torch.testing.assert_close(gate[rare], torch.full_like(gate[rare], 0.7), rtol=1e-3, atol=0)


def test_without_damping_all_tokens_write_alike() -> None:
    gates = make_network(update_scale=0.7, gate_damping=0.0).gates()
    torch.testing.assert_close(gates, torch.full_like(gates, 0.7))


def test_the_scale_of_the_gates_is_learnt() -> None:
    """A larger scale writes more of the token: the gradient says so, and only the scale moves."""
    network = make_network()
    tokens = random_tokens(1, 40)[0]
    contexts = normalise(torch.randn(40, 64, dtype=torch.float64))
    rotated = contexts.roll(1, dims=-1)
    kept = (network(contexts, network.embed(tokens)) * rotated).mean()
    (slope,) = torch.autograd.grad(kept, network.log_scale)
    with torch.no_grad():
        network.log_scale += 1e-5
        more = (network(contexts, network.embed(tokens)) * rotated).mean()
    assert slope < -0.01
    assert float((more - kept).detach() / 1e-5) == pytest.approx(float(slope), rel=1e-3)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_keep_is_what_is_left_of_a_difference(num_layers: int) -> None:
    """With updates that do not read the context, `keep` is the whole Jacobian."""
    network = make_network(num_layers=num_layers, context_dim=512)
    for layer in network.layers:
        assert isinstance(layer.context_weight, Tensor)
        torch.nn.init.zeros_(layer.context_weight)
    contexts = normalise(torch.randn(40, 512, dtype=torch.float64))
    nearby = normalise(contexts + 1e-3 * torch.randn(40, 512, dtype=torch.float64))
    embeddings = network.embed(random_tokens(1, 40)[0])
    before = (nearby - contexts).norm(dim=-1)
    after = (network(nearby, embeddings) - network(contexts, embeddings)).norm(dim=-1)
    torch.testing.assert_close(after / before, network.keep(embeddings), rtol=0.15, atol=0.02)


@settings(max_examples=15, deadline=None)
@given(
    num_rows=st.integers(1, 3),
    num_positions=st.one_of(st.integers(1, 8), st.just(140)),
    num_layers=st.integers(1, 3),
    update_scale=st.sampled_from([0.2, 0.5, 2.0]),
    seed=st.integers(0, 1000),
)
def test_quasi_newton_gives_the_trajectory(
    num_rows: int, num_positions: int, num_layers: int, update_scale: float, seed: int
) -> None:
    network = make_network(
        context_dim=16, num_layers=num_layers, update_scale=update_scale, seed=seed
    )
    embeddings = network.embed(random_tokens(num_rows, num_positions))
    exact = solve(network, embeddings, tolerance=1.0, max_sweeps=1, method="scan").contexts
    result = solve(
        network, embeddings, tolerance=1e-24, max_sweeps=num_positions, method="quasi_newton"
    )
    assert result.converged
    assert result.method == "quasi_newton"
    torch.testing.assert_close(result.contexts, exact, rtol=1e-4, atol=1e-4)


def test_a_long_memory_is_solved_in_far_fewer_sweeps() -> None:
    network = make_network(context_dim=256, update_scale=0.2)
    embeddings = network.embed(random_tokens(2, 128))
    plain, corrected = (
        solve(network, embeddings, tolerance=1e-6, max_sweeps=128, method=method)
        for method in ("sweeps", "quasi_newton")
    )
    assert plain.converged
    assert corrected.converged
    assert corrected.num_sweeps < plain.num_sweeps / 2
    last = residuals(corrected.contexts, sweep(network, corrected.contexts, embeddings))
    assert last.max() < 1e-6


def test_no_token_changes_a_context_before_it() -> None:
    network = make_network()
    tokens = random_tokens(2, 20)
    changed = tokens.clone()
    changed[:, 9] = (tokens[:, 9] + 1) % VOCAB_SIZE
    before, after = (
        solve(
            network, network.embed(text), tolerance=1e-24, max_sweeps=4, method="quasi_newton"
        ).contexts
        for text in (tokens, changed)
    )
    torch.testing.assert_close(after[:, :9], before[:, :9], rtol=0, atol=1e-12)
    assert (after[:, 9] - before[:, 9]).abs().max() > 1e-3


def test_a_network_without_linear_memory_is_swept() -> None:
    class Halving:
        context_dim = 4

        def __call__(self, contexts: Tensor, embeddings: Tensor, /) -> Tensor:
            return 0.5 * contexts + embeddings

    result = solve(
        Halving(), torch.randn(2, 9, 4), tolerance=1e-9, max_sweeps=9, method="quasi_newton"
    )
    assert result.method == "sweeps"


@pytest.mark.parametrize("reads_context", [False, True])
def test_a_carried_gradient_is_nearly_that_through_all_tokens(reads_context: bool) -> None:
    """Through as many sweeps as there are tokens it is exact; through one, it goes back one token."""
    network = make_network(context_dim=256, update_scale=0.4)
    if not reads_context:
        torch.nn.init.zeros_(network.layers[0].get_parameter("context_weight"))
    tokens = random_tokens(2, 30)
    direction = torch.randn(2, 256, dtype=torch.float64)

    def slope(num_gradient_sweeps: int, carry: bool) -> tuple[Tensor, Tensor]:
        embeddings = network.embed(tokens)
        contexts = with_gradient(
            network,
            solve_rows(network, embeddings.detach()),
            embeddings,
            num_sweeps=num_gradient_sweeps,
            carry=carry,
        )
        loss = (contexts[:, -1] * direction).sum()
        (gradient,) = torch.autograd.grad(loss, network.embedding.weight)
        return contexts.detach(), gradient.flatten()

    exact_contexts, exact = slope(30, False)
    contexts, carried = slope(1, True)
    _, one_sweep = slope(1, False)
    torch.testing.assert_close(contexts, exact_contexts, rtol=0, atol=1e-3)
    assert torch.cosine_similarity(carried, exact, dim=0) > 0.95
    assert torch.cosine_similarity(one_sweep, exact, dim=0) < 0.6


@pytest.mark.parametrize("update_scale", [0.1, 0.4, 1.0])
def test_each_sweep_more_makes_a_carried_gradient_more_exact(update_scale: float) -> None:
    network = make_network(update_scale=update_scale)
    tokens = random_tokens(2, 40)
    direction_BTC = torch.randn(2, 40, network.context_dim, dtype=torch.float64)

    def slope(num_sweeps: int, carry: bool) -> Tensor:
        embeddings = network.embed(tokens)
        solved = solve_rows(network, embeddings.detach())
        contexts = with_gradient(network, solved, embeddings, num_sweeps=num_sweeps, carry=carry)
        slopes = torch.autograd.grad((contexts * direction_BTC).sum(), network.parameters())
        return torch.cat([slope.flatten() for slope in slopes])

    exact = slope(40, carry=False)
    errors = [((slope(k, carry=True) - exact).norm() / exact.norm()).item() for k in (1, 2, 4, 8)]
    assert errors[0] < 0.3
    assert errors == sorted(errors, reverse=True)


def test_no_gradient_is_carried_to_the_past_from_the_future() -> None:
    network = make_network()
    tokens = random_tokens(1, 12)
    embeddings = network.embed(tokens).detach().requires_grad_()
    solved = solve_rows(network, embeddings.detach())
    contexts = with_gradient(network, solved, embeddings, num_sweeps=1, carry=True)
    (slope,) = torch.autograd.grad(contexts[:, 5].sum() + contexts[:, 5].square().sum(), embeddings)
    assert slope[:, 6:].eq(0).all()
    assert slope[:, :6].ne(0).any(dim=-1).all()
