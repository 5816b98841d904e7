"""Tokens a second of Phase 1's steps, and their share of what products reach."""

import functools
import statistics
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.devices import gib, peak_since_start, seconds_of, start_peak
from benchmarks.gpu_parts.bench import SEQUENCE, Bench
from benchmarks.solving import AnyNetwork
from benchmarks.text import text_rows
from benchmarks.training_step import Phase1Step, flops, new_network
from config import Config


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
                    f"{config.context_dim:5} {config.num_layers:7}  {yes(tf32):4}  "
                    f"{yes(compiled):8} "
                    f"{_training_line(bench, config, tf32, compiled, (square, rate))}"
                )


def yes(value: bool) -> str:
    return "yes" if value else "no"


def _training_line(
    bench: Bench, config: Config, tf32: bool, compiled: bool, rates: tuple[float, float]
) -> str:
    """Figures of one kind of step."""
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.compiler.reset()
    network = new_network(config, bench.text.counts, bench.device)
    start_peak(bench.device)
    try:
        seconds = step_seconds(network, config, bench, compiled)
    except torch.OutOfMemoryError:
        return "too little memory on the device"
    finally:
        torch.set_float32_matmul_precision("highest")
    rate = bench.sizes.step_tokens * flops(config).whole_loss / seconds
    shares = " ".join(f"{rate / peak:9.1%}" for peak in rates)
    return (
        f"{bench.sizes.step_tokens / seconds:10,.0f} {1e3 * seconds:10.2f} {rate / 1e12:8.4g} "
        f"{shares} {gib(peak_since_start(bench.device)):>7}"
    )


def step_seconds(network: AnyNetwork, config: Config, bench: Bench, compiled: bool) -> float:
    """Median seconds of a step; the first three, which compile and warm up, do not count."""
    backend = bench.sizes.backend if compiled else None
    step = Phase1Step(network, config, bf16=True, backend=backend)
    num_rows = bench.sizes.step_tokens // SEQUENCE
    tokens = text_rows(bench.text.train, num_rows, SEQUENCE).to(bench.device)
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
