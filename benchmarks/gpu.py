"""All that only a GPU can show, in one command of less than ten minutes.

    python benchmarks/gpu.py [--parts correctness solver memory training]
    python benchmarks/gpu.py --device cpu --small     the same code in sizes of seconds

Needs neither Optuna nor a network. The text is --corpus, or, where the default corpus is not
installed, the newest file of --cache-dir that a study made elsewhere.

correctness: root mean square of the error over that of the contexts, on the device against float64
    on the CPU, of networks after a short Phase 1: of one application of F, and of a text's contexts
    by two ways to solve. fp32 is without TF32, bf16 is autocast. Above its limit the line ends in
    FAILED, and the command with exit code 1.
solver: the tables of benchmarks/solver.py.
memory: seconds to take a step's contexts from all of a text's and to put them back, where they are
    kept on the device and where in the computer's memory; and peak memory of solving a text beyond
    what was there before, over the size of its contexts.
training: steps of Phase 1 with bf16 autocast in a bare loop. TF32 is that of what autocast leaves
    in single precision: diversity's products above all. Shares are of the rate of a large square
    product in bf16, and of the products of a layer in its own shapes, measured in this run; FLOPs
    are `training_flops`. GiB is the peak of the device's memory.
"""

import argparse
import copy
import dataclasses
import functools
import importlib.metadata
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.solver import (
    Settings,
    application_lines,
    describe,
    device_name,
    open_device,
    print_lines,
    seconds_of,
    solving_lines,
    text_rows,
)
from benchmarks.training_step import AnyNetwork, Phase1Step, new_network, train, training_flops
from config import Config, InputError, Memory, published
from datamodules.token_cache import load_tokens
from datamodules.token_files import TokenSplits, read_tokens
from models.fixed_point import Method, solve

PARTS = ("correctness", "solver", "memory", "training")
MEMORIES: tuple[Memory, ...] = ("residual", "gated")
LIMITS = {"fp32": 1e-5, "bf16": 2e-2}
"""Largest relative error that is right."""
_GIB = 2**30
_SEQUENCE = 128
"""Tokens of a row in training."""


class Sizes(NamedTuple):
    """What is measured; lengths in tokens, `widths` and `width` in entries of a context.

    solved: (rows, tokens) whose contexts are checked. kept: tokens whose contexts are kept.
    """

    width: int
    embed_dim: int
    solved: tuple[int, int]
    widths: tuple[int, ...]
    step_tokens: int
    steps: int
    product: int
    lengths: tuple[int, ...]
    kept: tuple[int, ...]
    num_samples: int
    backend: str
    limit: float


FULL = Sizes(
    width=768, embed_dim=256, solved=(2, 512), widths=(768, 2048), step_tokens=65_536, steps=5,
    product=8192, lengths=(1024, 4096, 16_384, 65_536), kept=(2**17, 2**20, 2**22),
    num_samples=50, backend="inductor", limit=60.0,
)  # fmt: skip
SMALL = Sizes(
    width=16, embed_dim=8, solved=(2, 32), widths=(16,), step_tokens=256, steps=1, product=64,
    lengths=(64, 128), kept=(512,), num_samples=4, backend="eager", limit=1.0,
)  # fmt: skip


class Text(NamedTuple):
    """train, unseen: (N,) tokens. counts: (V,), how often each stands in `train`."""

    train: Tensor
    unseen: Tensor
    counts: Tensor


class Bench(NamedTuple):
    """What every part is given."""

    sizes: Sizes
    text: Text
    device: torch.device
    options: argparse.Namespace

    def config(self, memory: Memory, num_layers: int, width: int, embed_dim: int) -> Config:
        # The residual memory as it was published: with a larger update, six layers hardly contract,
        # and what bfloat16 rounds in a step grows on its way.
        update_scale = published().update_scale if memory == "residual" else Config().update_scale
        return dataclasses.replace(
            Config(), memory=memory, update_scale=update_scale, num_layers=num_layers, context_dim=width, embed_dim=embed_dim,
            phase1_max_epochs=10, phase1_learning_rate=1e-3, num_samples=self.sizes.num_samples,
            # A residual memory expands under it, and what it solves is chaos.
            dist_reg_weight=0.2, contraction_weight=0.003 if memory == "gated" else 0.0,
        )  # fmt: skip

    def trained(self, memory: Memory, num_layers: int) -> AnyNetwork:
        """A network after a short Phase 1."""
        config = self.config(memory, num_layers, self.sizes.width, self.sizes.embed_dim)
        network = new_network(config, self.text.counts, self.device)
        train(network, config, text_rows(self.text.train, config.num_samples, _SEQUENCE))
        return network.eval()


def main() -> int:
    options = _options()
    device = open_device(options.device)
    text = load_text(options.corpus, options.vocab_size, Path(options.cache_dir))
    bench = Bench(SMALL if options.small else FULL, text, device, options)
    torch.set_float32_matmul_precision("highest")
    print(
        f"torch {torch.__version__}, {device_name(device)}, {torch.get_num_threads()} threads; "
        f"{len(text.train):,} training and {len(text.unseen):,} unseen tokens"
    )
    failures = 0
    if "correctness" in options.parts:
        failures = correctness(bench)
    for part, lines in (("solver", solver), ("memory", memory), ("training", training)):
        if part in options.parts:
            print(f"\n{part}")
            print_lines(lines(bench))
    if failures:
        print(f"\n{failures} of the correctness lines FAILED", file=sys.stderr)
    return 1 if failures else 0


def load_text(corpus: str, vocab_size: int, cache_dir: Path) -> Text:
    """The corpus, or what a cache has of it.

    Raises:
        InputError: there is neither.
    """
    try:
        splits = load_tokens(corpus, "train", vocab_size, cache_dir)
    except importlib.metadata.PackageNotFoundError as error:
        newest = _newest(cache_dir)
        if newest is None:
            raise InputError(
                f"--corpus is {corpus!r}, whose package is not installed, and --cache-dir "
                f"{str(cache_dir)!r} holds no tokens; give the one or the other."
            ) from error
        splits = newest
    trained, unseen = (
        torch.from_numpy(t.astype(np.int64)) for t in (splits.train, splits.validation)
    )
    vocabulary = splits.tokenizer.get_vocab_size(with_added_tokens=True)
    return Text(trained, unseen, torch.bincount(trained, minlength=vocabulary))


def _newest(cache_dir: Path) -> TokenSplits | None:
    files = sorted((cache_dir / "tokens").glob("*.tokens"), key=lambda file: file.stat().st_mtime)
    return read_tokens(files[-1]) if files else None


def correctness(bench: Bench) -> int:
    """Prints the relative errors; the number of those that are too large."""
    print("\ncorrectness")
    print("memory    layers  arithmetic  what            relative error    limit")
    failures = 0
    for memory_ in MEMORIES:
        for num_layers in (1, 6):
            network = bench.trained(memory_, num_layers)
            tokens_BT = text_rows(bench.text.unseen, *bench.sizes.solved)
            for (arithmetic, what), error in errors(network, tokens_BT).items():
                failed = not error < LIMITS[arithmetic]
                failures += failed
                print(
                    f"{memory_:9} {num_layers:6}  {arithmetic:10}  {what:14} {error:15.1e}  "
                    f"{LIMITS[arithmetic]:7.0e}  {'FAILED' if failed else 'ok'}",
                    flush=True,
                )
    return failures


@torch.no_grad()
def errors(network: AnyNetwork, tokens_BT: Tensor) -> dict[tuple[str, str], float]:
    """Relative errors by arithmetic and by what was computed."""
    device = next(network.parameters()).device
    exact = copy.deepcopy(network).cpu().double()
    right_BTC = _solved(exact, tokens_BT, "scan", LIMITS["fp32"])
    embeddings = exact.embed(tokens_BT)
    applied_BTC = exact(right_BTC, embeddings)
    tokens_BT = tokens_BT.to(device)
    found: dict[tuple[str, str], float] = {}
    for arithmetic, allowed in LIMITS.items():
        with torch.autocast(device.type, torch.bfloat16, enabled=arithmetic == "bf16"):
            once = network(right_BTC.float().to(device), network.embed(tokens_BT))
            found[arithmetic, "application"] = _relative(once, applied_BTC)
            for method in ("scan", "quasi_newton"):
                solved = _solved(network, tokens_BT, method, allowed)
                found[arithmetic, method] = _relative(solved, right_BTC)
    return found


def _solved(network: AnyNetwork, tokens_BT: Tensor, method: Method, allowed: float) -> Tensor:
    # Contexts have a root mean square of 1: half of what is allowed is left to the solver.
    return solve(
        network,
        network.embed(tokens_BT),
        tolerance=(allowed / 2) ** 2,
        max_sweeps=tokens_BT.shape[1],
        method=method,
    ).contexts


def _relative(values: Tensor, right: Tensor) -> float:
    return float((values.double().cpu() - right).norm() / right.norm())


def training(bench: Bench) -> Iterator[str]:
    """The table of training steps."""
    sizes, device = bench.sizes, bench.device
    square = product_rate([(sizes.product,) * 3], device)
    yield f"bf16 product of {sizes.product} x {sizes.product}: {square / 1e12:.4g} TFLOP/s"
    yield "    C  layers  TF32  compiled   tokens/s  ms a step  TFLOP/s  of square  of own     GiB"
    configs = [
        bench.config(bench.options.memory, 6, width, bench.options.embed_dim or width)
        for width in sizes.widths
    ]
    own = [product_rate(_own_shapes(config, sizes.step_tokens), device) for config in configs]
    # Compiled steps last: where there is no compiler all the other lines are there.
    for compiled in (False, True) if bench.options.compile else (False,):
        for config, rate in zip(configs, own, strict=True):
            for tf32 in (False, True):
                yield (
                    f"{config.context_dim:5} {config.num_layers:7}  {_yes(tf32):4}  "
                    f"{_yes(compiled):8} "
                    f"{_training_line(bench, config, tf32, compiled, (square, rate))}"
                )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _training_line(
    bench: Bench, config: Config, tf32: bool, compiled: bool, rates: tuple[float, float]
) -> str:
    """Figures of one kind of step."""
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.compiler.reset()
    network = new_network(config, bench.text.counts, bench.device)
    flops = bench.sizes.step_tokens * training_flops(network)
    _start_peak(bench.device)
    try:
        seconds = step_seconds(network, config, bench, compiled)
    except torch.OutOfMemoryError:
        return "too little memory on the device"
    finally:
        torch.set_float32_matmul_precision("highest")
    rate = flops / seconds
    shares = " ".join(f"{rate / peak:9.1%}" for peak in rates)
    return (
        f"{bench.sizes.step_tokens / seconds:10,.0f} {1e3 * seconds:10.2f} {rate / 1e12:8.4g} "
        f"{shares} {_gib(_peak(bench.device)):>7}"
    )


def step_seconds(network: AnyNetwork, config: Config, bench: Bench, compiled: bool) -> float:
    """Median seconds of a step; the first three, which compile and warm up, do not count."""
    backend = bench.sizes.backend if compiled else None
    step = Phase1Step(network, config, bf16=True, backend=backend)
    num_rows = bench.sizes.step_tokens // _SEQUENCE
    tokens = text_rows(bench.text.train, num_rows, _SEQUENCE).to(bench.device)
    contexts = torch.zeros(*tokens.shape, config.context_dim, device=bench.device)

    def steps(count: int) -> None:
        nonlocal contexts
        for _ in range(count):
            contexts = step(tokens, contexts)

    steps(3)
    count = bench.sizes.steps
    runs = [seconds_of(functools.partial(steps, count), bench.device) / count for _ in range(5)]
    return statistics.median(runs)


def _own_shapes(config: Config, num_tokens: int) -> list[tuple[int, int, int]]:
    """Of a layer's product with the contexts, forward, and backward by inputs and by weights."""
    inputs, outputs = config.context_dim, config.context_dim + config.embed_dim
    return [
        (num_tokens, inputs, outputs),
        (num_tokens, outputs, inputs),
        (outputs, num_tokens, inputs),
    ]


def product_rate(shapes: list[tuple[int, int, int]], device: torch.device) -> float:
    """FLOPs a second of bf16 products of (n, k) and (k, m), given as (n, k, m), one by one."""
    flops, seconds = 0, 0.0
    for n, k, m in shapes:
        left, right = (torch.randn(rows, k, device=device, dtype=torch.bfloat16) for rows in (n, m))

        def products(left: Tensor = left, right: Tensor = right) -> None:
            for _ in range(10):
                linear(left, right)

        products()
        seconds += statistics.median(seconds_of(products, device) for _ in range(5)) / 10
        flops += 2 * n * k * m
    return flops / seconds


def solver(bench: Bench) -> Iterator[str]:
    """The tables of sweeps against a scan."""
    settings = Settings(tolerance=1e-8, max_sweeps=128, repetitions=3, limit=bench.sizes.limit)
    for num_layers in (1, 6):
        network = bench.trained("gated", num_layers)
        yield describe(network, bench.sizes.embed_dim)
        yield from application_lines(network, bench.text.unseen)
        rows, lengths = bench.options.rows, bench.sizes.lengths
        yield from solving_lines(network, bench.text.unseen, rows, lengths, settings)


def memory(bench: Bench) -> Iterator[str]:
    """The tables of memory."""
    sizes, device = bench.sizes, bench.device
    yield f"contexts of {sizes.width} entries    GiB   ms a step: on the device   in memory"
    for num_tokens in sizes.kept:
        milliseconds = [
            1e3 * exchange_seconds(num_tokens, bench, where)
            for where in (device, torch.device("cpu"))
        ]
        yield (
            f"{num_tokens:13,} tokens {4 * num_tokens * sizes.width / _GIB:14.4f}"
            f" {milliseconds[0]:24.3f} {milliseconds[1]:12.3f}"
        )
    network = bench.trained("gated", 1)
    yield "solving: rows   tokens  method        GiB beyond, of its contexts'  times"
    for num_rows, length in ((1, sizes.lengths[-1]), (64, sizes.lengths[0])):
        for method in ("scan", "sweeps", "quasi_newton", "blocks", "auto"):
            used = solving_bytes(network, bench, (num_rows, length), method)
            contexts = 4 * num_rows * length * sizes.width
            times = "-" if used is None else f"{used / contexts:.2f}"
            yield (
                f"{num_rows:13} {length:8,}  {method:12} {_gib(used):>11}"
                f" {contexts / _GIB:16.4f} {times:>6}"
            )


def exchange_seconds(num_tokens: int, bench: Bench, where: torch.device) -> float:
    """Seconds to bring a step's rows to the device and to put them back where they are kept."""
    num_rows = num_tokens // _SEQUENCE
    kept = torch.zeros(num_rows, _SEQUENCE, bench.sizes.width, device=where)
    index = torch.randperm(num_rows, device=where)[: bench.sizes.step_tokens // _SEQUENCE]

    def exchange() -> None:
        kept[index] = kept[index].to(bench.device).to(where)

    exchange()
    return statistics.median(seconds_of(exchange, bench.device) for _ in range(5))


@torch.no_grad()
def solving_bytes(
    network: AnyNetwork, bench: Bench, shape: tuple[int, int], method: Method
) -> int | None:
    """Peak memory beyond what embeddings and network take; None where it cannot be told."""
    embeddings = network.embed(text_rows(bench.text.unseen, *shape).to(bench.device))
    before = _start_peak(bench.device)
    solve(network, embeddings, tolerance=1e-8, max_sweeps=128, method=method)
    peak = _peak(bench.device)
    return None if peak is None else peak - before


def _start_peak(device: torch.device) -> int:
    """Bytes that are taken now, from which on the peak is looked for."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return int(torch.cuda.memory_allocated(device))


def _peak(device: torch.device) -> int | None:
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None


def _gib(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / _GIB:.3f}"


def _options() -> argparse.Namespace:
    default = Config()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--small", action="store_true", help="tiny sizes, whose figures mean nothing"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--memory", choices=MEMORIES, default="gated", help="of the training steps")
    parser.add_argument("--embed-dim", type=int, help="of the training steps; C where not given")
    parser.add_argument("--rows", type=int, nargs="+", default=[1], help="of the solver's tables")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--corpus", default=default.corpus)
    parser.add_argument("--vocab-size", type=int, default=default.vocab_size)
    parser.add_argument("--cache-dir", default=default.cache_dir)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
