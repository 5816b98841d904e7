"""Where contexts are kept, what it costs to reach them, and what solving a text takes beyond."""

import statistics
from collections.abc import Iterator

import torch

from benchmarks.devices import GIB, gib, peak_since_start, seconds_of, start_peak
from benchmarks.gpu_parts.bench import SEQUENCE, Bench
from benchmarks.solving import AnyNetwork
from benchmarks.text import text_rows
from models.fixed_point import Method, solve


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
            f"{num_tokens:13,} tokens {4 * num_tokens * sizes.width / GIB:14.4f}"
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
                f"{num_rows:13} {length:8,}  {method:12} {gib(used):>11}"
                f" {contexts / GIB:16.4f} {times:>6}"
            )


def exchange_seconds(num_tokens: int, bench: Bench, where: torch.device) -> float:
    """Seconds to bring a step's rows to the device and to put them back where they are kept."""
    num_rows = num_tokens // SEQUENCE
    kept = torch.zeros(num_rows, SEQUENCE, bench.sizes.width, device=where)
    index = torch.randperm(num_rows, device=where)[: bench.sizes.step_tokens // SEQUENCE]

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
    before = start_peak(bench.device)
    solve(network, embeddings, tolerance=1e-8, max_sweeps=128, method=method)
    peak = peak_since_start(bench.device)
    return None if peak is None else peak - before
