"""All that only a GPU can show, in one command of less than ten minutes.

    python benchmarks/gpu.py [--parts correctness solver memory training phase2]
    python benchmarks/gpu.py --device cpu --small     the same code in sizes of seconds

Needs neither Optuna nor the internet. The text is --corpus, or, where the default corpus is not
installed, the newest file of --cache-dir that a study made elsewhere.

correctness: root mean square of the error over that of the contexts, on the device against float64
    on the CPU, of networks after a short Phase 1: of one application of F, and of a text's contexts
    by two ways to solve; and of a step of Phase 2, F as it was drawn: of its loss, and of all its
    gradients as one. fp32 is without TF32, bf16 is autocast. Above its limit the line ends in
    FAILED, and the command with exit code 1.
solver: the tables of benchmarks/solver.py.
memory: seconds to take a step's contexts from all of a text's and to put them back, where they are
    kept on the device and where in the computer's memory; and peak memory of solving a text beyond
    what was there before, over the size of its contexts.
training: steps of Phase 1 with bf16 autocast in a bare loop. TF32 is that of what autocast leaves
    in single precision: diversity's products above all. Shares are of the rate of a large square
    product in bf16, and of the products of a layer in its own shapes, measured in this run; FLOPs
    are those of the whole loss, as benchmarks/phase1.py counts them. GiB is the peak of the
    device's memory.
"""

import argparse
import copy
import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.devices import device_name, open_device
from benchmarks.gpu_parts.bench import FULL, MEMORIES, SEQUENCE, SMALL, Bench, load_text
from benchmarks.gpu_parts.memory import memory
from benchmarks.gpu_parts.phase2 import new_module, phase2, sized_as_full
from benchmarks.gpu_parts.training import training
from benchmarks.solving import (
    AnyNetwork,
    Settings,
    application_lines,
    describe,
    print_lines,
    solving_lines,
)
from benchmarks.text import text_rows
from config import Config, InputError
from lightning_modules.token_prediction_module import TokenPredictionModule
from models.fixed_point import Method, solve

PARTS = ("correctness", "solver", "memory", "training", "phase2")
LIMITS = {"fp32": 1e-5, "bf16": 2e-2}
"""Largest relative error that is right."""


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
    tables = {"solver": solver, "memory": memory, "training": training, "phase2": phase2}
    for part, lines in tables.items():
        if part in options.parts:
            print(f"\n{part}")
            print_lines(lines(bench))
    if failures:
        print(f"\n{failures} of the correctness lines FAILED", file=sys.stderr)
    return 1 if failures else 0


def correctness(bench: Bench) -> int:
    """Prints the relative errors; the number of those that are too large."""
    print("\ncorrectness")
    print("memory    layers  arithmetic  what            relative error    limit")
    failures = 0
    for memory_ in MEMORIES:
        for num_layers in (1, 6):
            network = bench.trained(memory_, num_layers)
            tokens_BT = text_rows(bench.text.unseen, *bench.sizes.solved)
            failures += _judge(memory_, num_layers, errors(network, tokens_BT))
    failures += _judge("gated", 1, phase2_errors(bench))
    return failures


def _judge(memory_: str, num_layers: int, found: Mapping[tuple[str, str], float]) -> int:
    """Prints relative errors by arithmetic and by what was computed; how many are too large."""
    failures = 0
    for (arithmetic, what), error in found.items():
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


def phase2_errors(bench: Bench) -> dict[tuple[str, str], float]:
    """Relative errors of a step's loss, and of all its gradients as one vector, from exact contexts."""
    config = dataclasses.replace(sized_as_full(bench.sizes.width, freeze_context=False), dropout=0)
    module = new_module(bench, config)
    exact = copy.deepcopy(module).cpu().double()
    tokens_BT = text_rows(bench.text.unseen, bench.sizes.solved[0], SEQUENCE)
    with torch.no_grad():
        contexts_BTC = _solved(exact.network, tokens_BT, "scan", LIMITS["fp32"])
    right = _loss_and_gradient(exact, contexts_BTC, tokens_BT)
    found: dict[tuple[str, str], float] = {}
    for arithmetic in LIMITS:
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=arithmetic == "bf16"):
            computed = _loss_and_gradient(
                module, contexts_BTC.float().to(bench.device), tokens_BT.to(bench.device)
            )
        for what, values, exact_values in zip(("loss", "gradient"), computed, right, strict=True):
            found[arithmetic, what] = _relative(values, exact_values)
    return found


def _loss_and_gradient(
    module: TokenPredictionModule, contexts_BTC: Tensor, tokens_BT: Tensor
) -> tuple[Tensor, Tensor]:
    module.zero_grad()
    loss, _ = module.loss_of_tokens(contexts_BTC, tokens_BT)
    loss.backward()  # type: ignore[no-untyped-call]  # torch has it without types
    gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
    return loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])


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


def solver(bench: Bench) -> Iterator[str]:
    """The tables of sweeps against a scan."""
    settings = Settings(tolerance=1e-8, max_sweeps=128, repetitions=3, limit=bench.sizes.limit)
    for num_layers in (1, 6):
        network = bench.trained("gated", num_layers)
        yield describe(network, bench.sizes.embed_dim)
        yield from application_lines(network, bench.text.unseen)
        rows, lengths = bench.options.rows, bench.sizes.lengths
        yield from solving_lines(network, bench.text.unseen, rows, lengths, settings)


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
