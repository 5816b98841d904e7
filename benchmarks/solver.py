"""Sweeps against a scan, and the cost model against both.

    python benchmarks/solver.py [--context-dim 64 256 768] [--tokens 128 1024 4096 16384 65536]

For each size a network is trained by Phase 1 on 50 x 128 tokens, ten sweeps, and then computes the
contexts of real unseen tokens. Two tables a network:

Applications: seconds to apply F to that many contexts, as `models.solver_cost` has it and as it is
measured, the first over the second, and what a quasi-Newton step adds to it, over what it takes.

Solving, a line for each number of rows and of tokens a row:
- seconds of each method, the median of runs that take turns. A mark tells that contexts are not
  within the tolerance: m max_sweeps, n non_finite, a amplified_rounding, g gave_up. In brackets
  what a method would take that was not run, from the length before: it is beyond --limit.
- sweeps of `sweeps`, `quasi_newton` and `blocks`.
- distance: the largest mean square distance of a position from the scan, over the methods that say
  that they converged.
- auto took: the method that `auto` ended with.
- auto/best: its seconds over those of the quickest method that converged.
- scan/best: the scan's seconds over those of the quickest sweeping method that converged.
"""

import argparse
import contextlib
import dataclasses
import functools
import io
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, get_args

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.devices import device_name, now, open_device, seconds_of
from benchmarks.phases import make_phase1
from config import Config, InputError
from datamodules.token_datamodule import TokenDataModule
from models.context_network import ContextNetwork
from models.fixed_point import FixedPointResult, Method, solve
from models.gated_network import GatedContextNetwork
from models.solver_cost import application_seconds
from models.sweeps import quasi_newton_step
from tuning.training import quieten

AnyNetwork = ContextNetwork | GatedContextNetwork

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


def main() -> None:
    options = _options()
    quieten()
    device = open_device(options.device)
    settings = Settings(options.tolerance, options.max_sweeps, options.repetitions, options.limit)
    print(f"torch {torch.__version__}, {device_name(device)}, {torch.get_num_threads()} threads")
    for context_dim in options.context_dim:
        config = _config(options, context_dim, device)
        datamodule = TokenDataModule(config)
        datamodule.setup("fit")
        network = train(config, datamodule).to(device)
        print(f"\n{describe(network, config.embed_dim)}; trained on {config.num_samples} x "
              f"{config.max_seq_length} tokens", flush=True)  # fmt: skip
        unseen = datamodule.val_rows.tokens.flatten()
        print_lines(application_lines(network, unseen))
        print_lines(solving_lines(network, unseen, options.rows, options.tokens, settings))


def train(config: Config, datamodule: TokenDataModule) -> AnyNetwork:
    """Phase 1, with nothing pruned; the network, in evaluation mode."""
    with contextlib.redirect_stderr(io.StringIO()):
        phase1 = make_phase1(config, datamodule, "trained")
    return phase1.module.network.eval()


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


def text_rows(tokens_N: Tensor, num_rows: int, num_tokens: int) -> Tensor:
    """(B, T) tokens that stand one after the other; rows start at different places of the text.

    What is longer than the text goes on at its start.
    """
    starts = torch.arange(num_rows).unsqueeze(1) * max(1, len(tokens_N) // num_rows)
    return tokens_N.cpu()[(starts + torch.arange(num_tokens)) % len(tokens_N)]


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


def _config(options: argparse.Namespace, context_dim: int, device: torch.device) -> Config:
    return dataclasses.replace(
        Config(), corpus=options.corpus, cache_dir=options.cache_dir, memory=options.memory,
        vocab_size=options.vocab_size, context_dim=context_dim, embed_dim=options.embed_dim,
        num_layers=options.num_layers, num_samples=50, num_val_samples=options.val_samples,
        phase1_max_epochs=options.epochs, phase1_min_converged_ratio=1.0,
        phase1_learning_rate=1e-3, accelerator="cpu" if device.type == "cpu" else "gpu",
    )  # fmt: skip


def _options() -> argparse.Namespace:
    default = Config()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--context-dim", type=int, nargs="+", default=[64, 256, 768])
    parser.add_argument("--embed-dim", type=int, default=default.embed_dim)
    parser.add_argument("--num-layers", type=int, default=default.num_layers)
    parser.add_argument("--memory", choices=("residual", "gated"), default="gated")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 1024, 4096, 16384])
    parser.add_argument("--tolerance", type=float, default=1e-8)
    parser.add_argument("--max-sweeps", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--limit", type=float, default=4.0, help="seconds of a method on a text")
    parser.add_argument("--epochs", type=int, default=10, help="sweeps of the training")
    parser.add_argument("--val-samples", type=int, default=64, help="sequences of unseen text")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--corpus", default=default.corpus)
    parser.add_argument("--vocab-size", type=int, default=default.vocab_size)
    parser.add_argument("--cache-dir", default=default.cache_dir)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
