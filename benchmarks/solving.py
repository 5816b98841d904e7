"""What the benchmarks of solving share: exact contexts, sweeps that are counted, and tables of methods.

Shapes: N tokens of a text, B rows of T of them, C = context_dim, E = embed_dim.
"""

import functools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from benchmarks.devices import now, seconds_of
from benchmarks.text import text_rows
from models.context_network import ContextNetwork
from models.fixed_point import FixedPointResult, Method, solve
from models.gated_network import GatedContextNetwork
from models.scan import scan
from models.solver_cost import application_seconds
from models.sweeps import Network, quasi_newton_step, residuals, sweep

AnyNetwork = ContextNetwork | GatedContextNetwork

TOLERANCE = 1e-4
"""Residual below which every position is solved, where sweeps are counted."""
MAX_SWEEPS = 64
METHODS: tuple[Method, ...] = ("scan", "sweeps", "quasi_newton", "blocks", "auto")
_SWEEPING = METHODS[1:4]
NUM_CONTEXTS = (1, 16, 256, 4096)
_WARM_UP = 32
"""Positions that each method solves before it is measured."""
_MARKS = {"converged": " ", "max_sweeps": "m", "non_finite": "n"}
_MARKS |= {"amplified_rounding": "a", "gave_up": "g"}


class Settings(NamedTuple):
    """tolerance, max_sweeps: as `solve` takes them. repetitions: runs of a method at most.
    limit: seconds of all runs of a method on one text."""

    tolerance: float
    max_sweeps: int
    repetitions: int
    limit: float


class Measured(NamedTuple):
    """A method on one text: `seconds` is the median; the others are those of `FixedPointResult`.

    distance: the largest mean square distance of a position from the scan; nan without a scan.
    """

    seconds: float
    num_sweeps: int
    outcome: str
    took: str
    distance: float


class Case(NamedTuple):
    """All methods on `num_rows` x `num_tokens`. forecast: seconds of those that were not run."""

    num_rows: int
    num_tokens: int
    measured: Mapping[str, Measured]
    forecast: Mapping[str, float]


@torch.no_grad()
def exact_contexts(network: Network, embeddings_BTE: Tensor) -> Tensor:
    """The contexts (B, T, C) of texts that start from nothing, token by token."""
    initial_BC = embeddings_BTE.new_zeros(len(embeddings_BTE), network.context_dim)
    return scan(network, embeddings_BTE, initial_BC)


@torch.no_grad()
def sweeps_to_tolerance(network: Network, embeddings_BTE: Tensor) -> float:
    """Quasi-Newton sweeps from zeros until the largest residual is below 1e-4; infinite where 64
    do not suffice.

    `models.fixed_point.solve` asks for more: an estimate of the distance from the solution too.
    """
    contexts_BTC = embeddings_BTE.new_zeros(*embeddings_BTE.shape[:2], network.context_dim)
    for num_sweeps in range(1, MAX_SWEEPS + 1):
        swept_BTC = sweep(network, contexts_BTC, embeddings_BTE)
        if residuals(contexts_BTC, swept_BTC).max() < TOLERANCE:
            return num_sweeps
        contexts_BTC = quasi_newton_step(network, contexts_BTC, swept_BTC, embeddings_BTE)
    return float("inf")


def describe(network: AnyNetwork, embed_dim: int) -> str:
    memory = "gated" if isinstance(network, GatedContextNetwork) else "residual"
    layers = f"{len(network.layers)} layer{'s' if len(network.layers) > 1 else ''}"
    return f"{memory} memory, C = {network.context_dim}, E = {embed_dim}, {layers}"


@torch.no_grad()
def application_lines(network: AnyNetwork, tokens_N: Tensor) -> Iterator[str]:
    """The table of applications."""
    device = next(network.parameters()).device
    yield "contexts  predicted s  measured s  predicted/measured  quasi-Newton step/application"
    for num_contexts in NUM_CONTEXTS:
        embeddings = network.embed(text_rows(tokens_N, 1, num_contexts).to(device))
        contexts = embeddings.new_zeros(1, num_contexts, network.context_dim).normal_()
        swept = network(contexts, embeddings)
        step = functools.partial(quasi_newton_step, network, contexts, swept, embeddings)
        measured = _median_seconds(functools.partial(network, contexts, embeddings), device)
        predicted = application_seconds(network, network.context_dim, num_contexts, device.type)
        yield (
            f"{num_contexts:8,}  {predicted:11.6f}  {measured:10.6f}  {predicted / measured:18.2f}  "
            f"{_median_seconds(step, device) / measured:29.2f}"
        )


def _median_seconds(work: Callable[[], object], device: torch.device) -> float:
    work()
    return statistics.median(seconds_of(work, device) for _ in range(20))


def solving_lines(
    network: AnyNetwork,
    tokens_N: Tensor,
    rows: Iterable[int],
    lengths: Iterable[int],
    settings: Settings,
) -> Iterator[str]:
    """The table of solving, lines as they are measured."""
    seconds = " ".join(f"{method + ' s':>14}" for method in METHODS)
    yield f"rows   tokens {seconds}  sweeps        distance     auto took  auto/best  scan/best"
    for case in cases(network, tokens_N, rows, lengths, settings):
        yield _line(case)


def cases(
    network: AnyNetwork,
    tokens_N: Tensor,
    rows: Iterable[int],
    lengths: Iterable[int],
    settings: Settings,
) -> Iterator[Case]:
    """Measures every number of rows at every length; the lengths rise."""
    device = next(network.parameters()).device
    for num_rows in rows:
        before: dict[str, float] = {}
        for num_tokens in sorted(lengths):
            forecast = {method: num_tokens * before[method] for method in before}
            methods = [m for m in METHODS if forecast.get(m, 0.0) <= settings.limit]
            measured: Mapping[str, Measured] = {}
            if methods:
                tokens_BT = text_rows(tokens_N, num_rows, num_tokens).to(device)
                measured = compare(network, tokens_BT, methods, settings)
            skipped = {m: s for m, s in forecast.items() if m not in measured}
            yield Case(num_rows, num_tokens, measured, skipped)
            before = {m: one.seconds / num_tokens for m, one in measured.items()} | {
                m: seconds / num_tokens for m, seconds in skipped.items()
            }


@torch.no_grad()
def compare(
    network: AnyNetwork, tokens_BT: Tensor, methods: Iterable[Method], settings: Settings
) -> dict[str, Measured]:
    """Measures the methods in turn on one text."""
    embeddings = network.embed(tokens_BT)
    times: dict[str, list[float]] = {method: [] for method in methods}
    found: dict[str, Measured] = {}
    reference: Tensor | None = None
    for round_ in range(settings.repetitions):
        for method, seconds in times.items():
            if round_ == 0:
                _solve(network, embeddings[:, :_WARM_UP], method, settings)
            elif sum(seconds) + min(seconds) > settings.limit:
                continue
            result: FixedPointResult | None = None
            start = now(embeddings.device)
            result = _solve(network, embeddings, method, settings)
            seconds.append(now(embeddings.device) - start)
            if method == "scan":
                reference = result.contexts
            if round_ == 0:
                found[method] = _measured(result, reference)
            del result
    return {
        method: one._replace(seconds=statistics.median(times[method]))
        for method, one in found.items()
    }


def _solve(
    network: AnyNetwork, embeddings_BTE: Tensor, method: str, settings: Settings
) -> FixedPointResult:
    assert method in get_args(Method)
    return solve(
        network,
        embeddings_BTE,
        tolerance=settings.tolerance,
        max_sweeps=settings.max_sweeps,
        method=method,  # type: ignore[arg-type]  # one of them, as asserted
    )


def _measured(result: FixedPointResult, reference_BTC: Tensor | None) -> Measured:
    distance = math.nan
    if reference_BTC is not None:
        distance = float((result.contexts - reference_BTC).square().mean(dim=-1).max())
    return Measured(math.nan, result.num_sweeps, result.outcome, result.method, distance)


def best(case: Case, methods: Iterable[str]) -> float:
    """Seconds of the quickest method that converged; nan where none has."""
    measured = [case.measured[method] for method in methods if method in case.measured]
    return min((m.seconds for m in measured if m.outcome == "converged"), default=math.nan)


def _line(case: Case) -> str:
    sweeps = "/".join(
        str(case.measured[m].num_sweeps) if m in case.measured else "-" for m in _SWEEPING
    )
    auto, scan = case.measured.get("auto"), case.measured.get("scan")
    swept = [m for m in case.measured.values() if m.took != "scan" and m.outcome == "converged"]
    ratio = auto.seconds / best(case, METHODS[:-1]) if auto else math.nan
    speedup = scan.seconds / best(case, _SWEEPING) if scan else math.nan
    return (
        f"{case.num_rows:4} {case.num_tokens:8,} "
        f"{' '.join(f'{_seconds_text(case, method):>14}' for method in METHODS)}  {sweeps:12}  "
        f"{max((m.distance for m in swept), default=math.nan):8.1e}  {auto.took if auto else '-':>12}  {ratio:9.2f}  "
        f"{speedup:9.2f}"
    )


def _seconds_text(case: Case, method: str) -> str:
    if method in case.measured:
        one = case.measured[method]
        return f"{one.seconds:.4f}{_MARKS[one.outcome]}"
    return f"({case.forecast[method]:.3g}) "


def print_lines(lines: Iterable[str]) -> None:
    """Prints each as soon as it is there."""
    for line in lines:
        print(line, flush=True)
