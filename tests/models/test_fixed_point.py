"""Sweeps and the trajectory: causality, exactness, and that one is the other's fixed point."""

import gc
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.context_network import ContextNetwork
from models.fixed_point import Method, solve, solve_chunks, solve_rows
from models.gated_network import GatedContextNetwork
from models.solver_cost import application_seconds, plan
from models.sweeps import Network, residuals, shift_right, sweep

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


class Tanh:
    """A plain recurrent network; with a large gain it amplifies rounding errors without bound."""

    def __init__(self, context_dim: int, gain: float, dtype: torch.dtype) -> None:
        self.context_dim = context_dim
        self.recurrent = (gain * torch.randn(context_dim, context_dim) / context_dim**0.5).to(dtype)
        self.inputs = (torch.randn(context_dim, EMBED_DIM) / EMBED_DIM**0.5).to(dtype)

    def __call__(self, contexts: Tensor, embeddings: Tensor, /) -> Tensor:
        return torch.tanh(contexts @ self.recurrent.T + embeddings @ self.inputs.T)


EMBED_DIM = 8
METHODS: tuple[Method, ...] = ("auto", "scan", "sweeps", "blocks", "quasi_newton")
TOLERANCES = {
    torch.bfloat16: (1e-1, 1e-2),
    torch.float32: (1e-2, 1e-4, 1e-8),
    torch.float64: (1e-2, 1e-8, 1e-20),
}


class Problem(NamedTuple):
    network: Network
    embeddings: Tensor
    tolerance: float


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Networks that contract, hardly do, or expand, in all sizes that a text may have."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    dtype = draw(st.sampled_from(list(TOLERANCES)))
    context_dim = draw(st.sampled_from([4, 16, 48]))
    gain = draw(st.sampled_from([0.3, 0.7, 1.0, 1.3, 2.0, 3.0]))
    num_rows = draw(st.sampled_from([1, 3]))
    num_positions = draw(st.integers(1, 40) | st.sampled_from([100, 255, 256, 257, 300, 512]))
    kind = draw(st.sampled_from([Tanh, ContextNetwork, GatedContextNetwork]))
    embeddings = torch.randn(num_rows, num_positions, EMBED_DIM).to(dtype)
    tolerance = draw(st.sampled_from(TOLERANCES[dtype]))
    if kind is Tanh:
        return Problem(Tanh(context_dim, gain, dtype), embeddings, tolerance)
    network = kind(
        vocab_size=2,
        context_dim=context_dim,
        embed_dim=EMBED_DIM,
        num_layers=draw(st.sampled_from([1, 2])),
        update_scale=draw(st.sampled_from([0.2, 0.5, 1.0])),
    )
    with torch.no_grad():
        for parameter in network.layers.parameters():
            parameter.mul_(gain)
    # A small embedding is a token that leaves nearly all of a gated memory as it is.
    scale = draw(st.sampled_from([0.2, 1.0]))
    return Problem(network.to(dtype), scale * embeddings, tolerance)


def distance(contexts: Tensor, others: Tensor) -> float:
    """Largest mean square distance of two contexts at one position."""
    return float((contexts - others).double().square().mean(dim=-1).max())


@settings(max_examples=40, deadline=None)
@given(problem=problems(), method=st.sampled_from(METHODS))
def test_what_has_converged_is_the_trajectory(problem: Problem, method: Method) -> None:
    network, embeddings, tolerance = problem
    exact = solve(network, embeddings, tolerance=1.0, max_sweeps=1, method="scan").contexts
    num_positions = embeddings.shape[1]
    result = solve(
        network, embeddings, tolerance=tolerance, max_sweeps=num_positions, method=method
    )
    assert result.converged == (result.outcome == "converged")
    assert result.contexts.shape == exact.shape
    if result.converged:
        assert distance(result.contexts, exact) <= tolerance
    else:
        assert result.outcome in ("amplified_rounding", "max_sweeps")
    # Where sweeping fails `auto` ends with a scan.
    assert result.converged or method != "auto"


@pytest.mark.parametrize(
    ("seed", "gain", "num_positions", "num_layers", "update_scale", "method"),
    [
        (590621, 1.3, 300, 2, 0.5, "quasi_newton"),
        (205837, 1.3, 255, 2, 0.5, "sweeps"),
        (972176, 3.0, 257, 1, 0.2, "sweeps"),
    ],
)
def test_rounding_errors_of_bfloat16_are_looked_at_after_fewer_sweeps(
    seed: int,
    gain: float,
    num_positions: int,
    num_layers: int,
    update_scale: float,
    method: Method,
) -> None:
    """Each was once said to have converged after 40 to 58 sweeps, 1.6 to 3.6 tolerances away."""
    torch.manual_seed(seed)
    embeddings = torch.randn(1, num_positions, 8).to(torch.bfloat16)
    network = GatedContextNetwork(
        vocab_size=2,
        context_dim=4,
        embed_dim=8,
        num_layers=num_layers,
        update_scale=update_scale,
    )
    with torch.no_grad():
        for parameter in network.layers.parameters():
            parameter.mul_(gain)
    network = network.to(torch.bfloat16)
    exact = solve(network, embeddings, tolerance=1.0, max_sweeps=1, method="scan").contexts
    result = solve(network, embeddings, tolerance=0.01, max_sweeps=num_positions, method=method)
    assert not result.converged or distance(result.contexts, exact) <= 0.01


@settings(max_examples=25, deadline=None)
@given(problem=problems(), method=st.sampled_from(["sweeps", "quasi_newton"]))
def test_more_sweeps_never_give_a_worse_result(problem: Problem, method: Method) -> None:
    network, embeddings, _ = problem
    # Exact contexts differ by rounding errors; below those no result is worse than another.
    rounding = (4 * torch.finfo(embeddings.dtype).eps) ** 2
    worst = float("inf")
    for max_sweeps in (1, 2, 3, 5, 8, 13, 21):
        result = solve(network, embeddings, tolerance=1e-30, max_sweeps=max_sweeps, method=method)
        with torch.no_grad():
            swept = sweep(network, result.contexts, embeddings)
        now = float(residuals(result.contexts, swept).max())
        assert now <= worst + rounding or result.converged
        worst = now


@settings(max_examples=15, deadline=None)
@given(problem=problems(), num_new=st.integers(1, 9), method=st.sampled_from(METHODS))
def test_padding_changes_no_context_before_it(
    problem: Problem, num_new: int, method: Method
) -> None:
    network, embeddings, tolerance = problem
    num_positions = embeddings.shape[1]
    padded = torch.cat([embeddings, torch.randn_like(embeddings)[:, :num_new]], dim=1)
    alone, together = (
        solve(network, text, tolerance=tolerance, max_sweeps=text.shape[1], method=method)
        for text in (embeddings, padded)
    )
    if alone.converged and together.converged:
        assert distance(alone.contexts, together.contexts[:, :num_positions]) <= 4 * tolerance


@pytest.mark.parametrize("num_positions", [255, 256, 257, 511, 700])
def test_length_need_not_be_a_multiple_of_the_block(num_positions: int) -> None:
    embeddings = random_embeddings(2, num_positions, 4)
    exact = solve(Halving(), embeddings, tolerance=1.0, max_sweeps=1, method="scan").contexts
    result = solve(Halving(), embeddings, tolerance=1e-16, max_sweeps=99, method="blocks")
    assert result.converged
    assert result.method == ("blocks" if num_positions > 256 else "sweeps")
    torch.testing.assert_close(result.contexts, exact, rtol=0, atol=1e-7)


def test_blocks_sweep_nothing_again_that_has_settled() -> None:
    """One slow stretch is swept until it has settled, and the rest of the text is not."""
    embeddings = random_embeddings(1, 4096, 1)
    embeddings[:, 100:110] = 4.0
    embeddings[:, 110:] = embeddings[:, 110:].clamp(-0.1, 0.1)

    class Slow:
        context_dim = 1

        def __call__(self, contexts: Tensor, embeddings: Tensor, /) -> Tensor:
            return torch.where(embeddings > 3.5, 0.999, 0.2) * contexts + embeddings

    whole, blocks = (
        solve(Slow(), embeddings, tolerance=1e-16, max_sweeps=500, method=method)
        for method in ("sweeps", "blocks")
    )
    assert whole.converged
    assert blocks.converged
    assert blocks.num_sweeps < whole.num_sweeps


def test_memory_does_not_grow_with_the_sweeps() -> None:
    sizes: list[int] = []
    num_calls = 0

    class Watched(Tanh):
        def __call__(self, contexts: Tensor, embeddings: Tensor, /) -> Tensor:
            nonlocal num_calls
            num_calls += 1
            if num_calls not in (6, 61):
                return super().__call__(contexts, embeddings)
            alive = {
                tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
                for tensor in gc.get_objects()
                if type(tensor) is Tensor
            }
            sizes.append(sum(alive.values()))
            return super().__call__(contexts, embeddings)

    torch.manual_seed(0)
    network = Watched(16, 3.0, torch.float64)
    embeddings = random_embeddings(2, 400, EMBED_DIM)
    solve(network, embeddings, tolerance=1e-20, max_sweeps=60, method="sweeps")
    assert len(sizes) == 2
    assert sizes[1] - sizes[0] < embeddings.shape[1] * 16 * 8


@settings(max_examples=15, deadline=None)
@given(num_rows=st.integers(1, 3), num_positions=st.integers(1, 6), seed=st.integers(0, 1000))
def test_every_method_gives_the_trajectory_and_it_is_a_fixed_point(
    num_rows: int, num_positions: int, seed: int
) -> None:
    network = make_network(seed=seed)
    embeddings = network.embed(torch.randint(13, (num_rows, num_positions)))
    expected = token_by_token(network, embeddings)
    for method in METHODS:
        result = solve(
            network, embeddings, tolerance=1e-24, max_sweeps=num_positions, method=method
        )
        torch.testing.assert_close(result.contexts, expected)
        assert result.converged
        swept = sweep(network, result.contexts, embeddings)
        torch.testing.assert_close(swept, result.contexts)


@pytest.mark.parametrize("num_sweeps", [1, 3, 6])
def test_first_positions_are_exact_after_as_many_sweeps(num_sweeps: int) -> None:
    embeddings = random_embeddings(2, 7, 4)
    exact = solve(Halving(), embeddings, tolerance=1.0, max_sweeps=1, method="scan").contexts
    result = solve(Halving(), embeddings, tolerance=TINY, max_sweeps=num_sweeps, method="sweeps")
    assert result.num_sweeps == num_sweeps
    torch.testing.assert_close(result.contexts[:, :num_sweeps], exact[:, :num_sweeps])
    errors = (result.contexts - exact)[:, num_sweeps:].abs().amax(dim=-1)
    assert (errors > 1e-3).all()


@pytest.mark.parametrize(
    ("method", "max_sweeps"), [("scan", 1), ("sweeps", 8), ("blocks", 8), ("auto", 8)]
)
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


@pytest.mark.parametrize("position", [0, 4, 7])
def test_token_changes_nothing_before_it_in_any_sweep(position: int) -> None:
    network = make_network()
    tokens = torch.randint(12, (2, 8))
    changed = tokens.clone()
    changed[:, position] = 12
    before, after = torch.zeros(2, 8, 8).double(), torch.zeros(2, 8, 8).double()
    for _ in range(8):
        before = sweep(network, before, network.embed(tokens))
        after = sweep(network, after, network.embed(changed))
        torch.testing.assert_close(after[:, :position], before[:, :position], rtol=0, atol=1e-12)


def test_rows_do_not_see_each_other() -> None:
    network = make_network()
    embeddings = random_embeddings(3, 5, 6)
    alone = solve(network, embeddings[1:2], tolerance=TINY, max_sweeps=5).contexts
    together = solve(network, embeddings, tolerance=TINY, max_sweeps=5).contexts
    torch.testing.assert_close(together[1:2], alone)


@pytest.mark.parametrize("method", METHODS)
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


def test_trace_is_the_mean_residual_of_what_each_sweep_began_with() -> None:
    embeddings = random_embeddings(2, 6, 4)
    result = solve(Halving(), embeddings, tolerance=TINY, max_sweeps=3, method="sweeps")
    contexts, expected = torch.zeros_like(embeddings), []
    for _ in range(4):
        swept = sweep(Halving(), contexts, embeddings)
        expected.append((swept - contexts).square().mean())
        contexts = swept
    torch.testing.assert_close(result.residual_trace, torch.stack(expected))


def test_contraction_converges_in_few_sweeps() -> None:
    embeddings = random_embeddings(2, 200, 4)
    result = solve(Halving(), embeddings, tolerance=1e-8, max_sweeps=200, method="sweeps")
    assert result.converged
    assert result.num_sweeps == len(result.residual_trace) - 1 < 40
    exact = solve(Halving(), embeddings, tolerance=1.0, max_sweeps=1, method="scan").contexts
    assert distance(result.contexts, exact) < 1e-8


def test_a_small_residual_alone_is_not_convergence() -> None:
    """Where hardly anything is forgotten, small changes are still to come from far away."""

    class Remembering:
        context_dim = 4

        def __call__(self, contexts: Tensor, embeddings: Tensor, /) -> Tensor:
            return 0.999 * contexts + embeddings

    embeddings = 1e-3 * torch.ones(1, 3000, 4, dtype=torch.float64)
    exact = solve(Remembering(), embeddings, tolerance=1.0, max_sweeps=1, method="scan").contexts
    result = solve(Remembering(), embeddings, tolerance=1e-4, max_sweeps=3000, method="sweeps")
    assert result.converged
    assert distance(result.contexts, exact) <= 1e-4
    early = next(i for i, r in enumerate(result.residual_trace.tolist()) if r < 1e-4)
    assert early < 2
    assert result.num_sweeps > 1000


def test_expanding_network_has_not_converged_before_all_sweeps() -> None:
    embeddings = random_embeddings(2, 12, 4)
    short = solve(Expanding(), embeddings, tolerance=1e-2, max_sweeps=11, method="sweeps")
    assert not short.converged
    assert short.outcome == "max_sweeps"
    assert short.num_sweeps == 11
    full = solve(Expanding(), embeddings, tolerance=1e-2, max_sweeps=99, method="sweeps")
    assert full.converged
    assert full.num_sweeps == 12


def test_amplified_rounding_is_named_and_auto_scans_instead() -> None:
    network, embeddings = Tanh(48, 4.0, torch.float32), torch.randn(1, 400, EMBED_DIM)
    exact = solve(network, embeddings, tolerance=1.0, max_sweeps=1, method="scan").contexts
    swept = solve(network, embeddings, tolerance=1e-6, max_sweeps=400, method="sweeps")
    assert (swept.outcome, swept.converged) == ("amplified_rounding", False)
    result = solve(network, embeddings, tolerance=1e-6, max_sweeps=400)
    assert result.converged
    assert result.method == "scan"
    assert torch.equal(result.contexts, exact)


def test_one_unsettled_position_is_not_converged() -> None:
    embeddings = torch.zeros(1, 8, 4, dtype=torch.float64)
    embeddings[0, 0] = 1.0
    result = solve(Halving(), embeddings, tolerance=0.2, max_sweeps=1, method="sweeps")
    assert result.residual_trace[0] < 0.2
    assert not result.converged


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_contexts_that_are_not_finite_stop_it(method: Method, value: float) -> None:
    num_calls = 0

    class Counting(Expanding):
        def __call__(self, contexts: Tensor, embeddings: Tensor, /) -> Tensor:
            nonlocal num_calls
            num_calls += 1
            return super().__call__(contexts, embeddings)

    embeddings = random_embeddings(1, 30, 4)
    embeddings[0, 1, 0] = value
    result = solve(Counting(), embeddings, tolerance=1.0, max_sweeps=30, method=method)
    assert (result.outcome, result.converged) == ("non_finite", False)
    assert num_calls <= (30 if result.method == "scan" else 2)


def test_overflow_stops_with_the_last_finite_contexts() -> None:
    embeddings = torch.full((1, 200, 4), 1e30)
    result = solve(Expanding(), embeddings, tolerance=1.0, max_sweeps=200, method="sweeps")
    assert result.outcome == "non_finite"
    assert result.contexts.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_solving_builds_no_gradient(method: Method) -> None:
    network = make_network()
    embeddings = network.embed(torch.randint(13, (2, 4)))
    assert embeddings.requires_grad
    result = solve(network, embeddings, tolerance=TINY, max_sweeps=4, method=method)
    assert not result.contexts.requires_grad
    assert not result.residual_trace.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_that_is_asked_for_is_that_of_the_last_sweeps(method: Method) -> None:
    network = make_network()
    tokens, weights = torch.randint(13, (2, 5)), random_embeddings(2, 5, 8)
    result = solve(
        network,
        network.embed(tokens),
        tolerance=1e-24,
        max_sweeps=5,
        method=method,
        num_gradient_sweeps=2,
    )
    contexts = solve(network, network.embed(tokens), tolerance=1e-24, max_sweeps=5).contexts
    for _ in range(2):
        contexts = sweep(network, contexts, network.embed(tokens))
    parameters = list(network.parameters())
    found = torch.autograd.grad((result.contexts * weights).sum(), parameters)
    expected = torch.autograd.grad((contexts * weights).sum(), parameters)
    torch.testing.assert_close(found, expected)
    assert all(gradient.abs().sum() > 0 for gradient in found)


def test_a_sweep_has_a_gradient() -> None:
    network = make_network()
    contexts = random_embeddings(2, 4, 8)
    swept = sweep(network, contexts, network.embed(torch.randint(13, (2, 4))))
    (swept * random_embeddings(2, 4, 8)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("num_rows", "num_positions", "context_dim", "device", "scans"),
    [
        (1, 1, 768, "cpu", True),  # a token that is generated
        (64, 128, 768, "cpu", True),  # rows fill a matrix product
        (1, 128, 768, "cpu", True),
        (1, 16_384, 64, "cpu", False),  # starting a layer takes longer than its arithmetic
        (1, 1, 768, "cuda", True),
        (1, 4096, 768, "cuda", False),
        (1, 16_384, 768, "cuda", False),
    ],
)
def test_plan_scans_where_a_scan_is_cheaper(
    num_rows: int, num_positions: int, context_dim: int, device: str, scans: bool
) -> None:
    network = make_network(context_dim)
    assert (plan(network, context_dim, num_rows, num_positions, device).window == 0) == scans


def test_application_costs_a_start_and_then_the_arithmetic() -> None:
    network = make_network(256, 64)

    def seconds(num_contexts: int, device: str = "cpu") -> float:
        return application_seconds(network, 256, num_contexts, device)

    assert seconds(2) < 1.5 * seconds(1)
    assert seconds(200_000) == pytest.approx(2 * seconds(100_000), rel=0.01)
    assert seconds(100_000, "cuda") < seconds(100_000) / 50


def test_auto_says_which_method_it_took() -> None:
    network = make_network()
    many = solve(network, random_embeddings(64, 3, 6), tolerance=1.0, max_sweeps=3)
    assert (many.method, many.num_sweeps, len(many.residual_trace)) == ("scan", 0, 0)
    one = solve(Halving(), random_embeddings(1, 4000, 4), tolerance=1e-8, max_sweeps=64)
    assert one.method in ("sweeps", "blocks")
    assert one.converged


def test_a_text_of_100_000_tokens_in_chunks_is_the_text_in_one_piece() -> None:
    network = Tanh(8, 0.6, torch.float32)
    text = torch.randn(1, 100_000, EMBED_DIM)
    whole = solve(network, text, tolerance=1e-8, max_sweeps=64, method="scan").contexts
    start, widest = 0, 0
    for part in solve_chunks(network, text.split(4096, dim=1), tolerance=1e-8, max_sweeps=64):
        assert part.converged
        widest = max(widest, part.contexts.shape[1])
        stop = start + part.contexts.shape[1]
        assert distance(part.contexts, whole[:, start:stop]) <= 1e-8
        start = stop
    assert (start, widest) == (100_000, 4096)


@pytest.mark.parametrize("make", [make_network, lambda: make_network(num_layers=1)])
def test_a_token_more_costs_one_application(make: Callable[[], ContextNetwork]) -> None:
    network, embeddings = make(), random_embeddings(1, 40, 6)
    whole = solve(network, embeddings, tolerance=TINY, max_sweeps=40, method="scan").contexts
    calls: list[int] = []
    network.register_forward_hook(lambda *_: calls.append(1))
    one = solve(
        network, embeddings[:, 39:], tolerance=TINY, max_sweeps=9, initial=whole[:, 38]
    ).contexts
    assert len(calls) == 1
    torch.testing.assert_close(one[:, 0], whole[:, 39])


@pytest.mark.parametrize("num_rows", [2, 16])
def test_solve_rows_gives_the_trajectory(num_rows: int) -> None:
    network = make_network()
    embeddings = random_embeddings(num_rows, 9, 6)
    expected = token_by_token(network, embeddings)
    torch.testing.assert_close(solve_rows(network, embeddings), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
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


def test_what_does_not_fit_is_refused() -> None:
    network, embeddings = make_network(), random_embeddings(2, 3, 6)
    with pytest.raises(ValueError, match=r"initial of shape \(2, 5\) must have \(2, 8\)"):
        solve(network, embeddings, tolerance=1.0, max_sweeps=1, initial=random_embeddings(2, 5))
    with pytest.raises(ValueError, match="method='newton' must be one of auto"):
        solve(network, embeddings, tolerance=1.0, max_sweeps=1, method="newton")  # type: ignore[arg-type]  # the point
    with pytest.raises(ValueError, match="num_gradient_sweeps=-1"):
        solve(network, embeddings, tolerance=1.0, max_sweeps=1, num_gradient_sweeps=-1)
