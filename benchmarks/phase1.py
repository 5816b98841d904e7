"""Phase 1 against the arithmetic that it cannot do without.

    python benchmarks/phase1.py [--cases published-640 ...] [--precision bf16-mixed]

Prints, for each size, the seconds of a sweep over the training tokens: of the floor (FLOPs
over the rate of this machine's matrix product), of a bare PyTorch loop, and of the Lightning module
through `fit_phase` with TensorBoard's logs. All contenders take turns, so that other work on the
machine hits them alike.
"""

import argparse
import contextlib
import dataclasses
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn.functional import linear

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import Config
from datamodules.token_datamodule import TokenBatch, TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.schedule import warmup_then_cosine
from models.fixed_point import quasi_newton_step, residuals, sweep
from models.gated_network import GatedContextNetwork
from tuning.training import fit_phase, quieten

_PRODUCT_SIZE = 2048
"""Rows and columns of the product whose rate is the machine's."""


def _published(num_samples: int) -> Config:
    return dataclasses.replace(
        Config(), num_layers=6, context_dim=768, embed_dim=768, num_samples=num_samples
    )


CASES: Mapping[str, Config] = {
    "published-640": _published(5),
    "published-6400": _published(50),
    "default": Config(),
    "large": dataclasses.replace(
        Config(), num_layers=2, context_dim=2048, embed_dim=1024, num_samples=50
    ),
}


class Flops(NamedTuple):
    """A training token's FLOPs in one sweep.

    formula: 6 L (C + E)². exact: 6 a weight, less the gradient by the first layer's inputs.
    diversity: the products of the second moments, forward and backward, which neither has.
    """

    formula: int
    exact: int
    diversity: int


class Sweeps(NamedTuple):
    """seconds: of each sweep's training. whole: of everything, set-up and validation counted in.
    weights: after the last."""

    seconds: list[float]
    whole: float
    weights: list[Tensor]


def main() -> None:
    options = _options()
    quieten()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.precision}")
    for name in options.cases:
        _compare(name, _config(CASES[name], options), options)


def flops(config: Config) -> Flops:
    """Counts a configuration's FLOPs a token and sweep."""
    context_dim, num_inputs = config.context_dim, config.context_dim + config.embed_dim
    outputs = [num_inputs] * (config.num_layers - 1) + [context_dim]
    num_weights = sum(outputs) * num_inputs
    return Flops(
        formula=6 * config.num_layers * num_inputs**2,
        exact=6 * num_weights - 2 * outputs[0] * num_inputs,
        diversity=4 * context_dim**2,
    )


def product_rate(dtype: torch.dtype, repetitions: int = 5) -> float:
    """FLOPs a second of a square matrix product, the best of some."""
    size = _PRODUCT_SIZE
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        linear(left, right)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def train_bare(config: Config, datamodule: TokenDataModule) -> Sweeps:
    """The same arithmetic as `FixedPointModule`'s training, in a plain loop, without validation."""
    whole = time.perf_counter()
    L.seed_everything(config.random_seed, verbose=False)
    parts = FixedPointModule(config, datamodule.vocab_size)
    if isinstance(parts.network, GatedContextNetwork):
        parts.network.set_token_counts(datamodule.token_counts())
    loader = datamodule.train_dataloader()
    weights = list(parts.network.layers.parameters())
    optimizer = torch.optim.Adam(weights, lr=config.phase1_learning_rate, fused=True)
    factor = warmup_then_cosine(len(loader) * config.phase1_max_epochs, config.warmup_ratio)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    contexts = torch.zeros(*datamodule.train_rows.tokens.shape, config.context_dim)
    seconds = []
    for epoch in range(config.phase1_max_epochs):
        start = time.perf_counter()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]  # a DistributedSampler
        for batch in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16-mixed"):
                loss = _bare_loss(parts, contexts, batch)
            optimizer.zero_grad()
            loss.backward()
            if config.gradient_clip:
                torch.nn.utils.clip_grad_norm_(weights, config.gradient_clip)
            optimizer.step()
            scheduler.step()
        seconds.append(time.perf_counter() - start)
    return Sweeps(seconds, time.perf_counter() - whole, weights)


def train_ours(config: Config, datamodule: TokenDataModule) -> Sweeps:
    """Phase 1 as a study and a full-length run have it, with validation and TensorBoard's logs."""
    whole = time.perf_counter()
    L.seed_everything(config.random_seed, verbose=False)
    module = FixedPointModule(config, datamodule.vocab_size)
    clock = _SweepClock()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        fit_phase(
            module, datamodule, config=config, num_epochs=config.phase1_max_epochs,
            logger=TensorBoardLogger(folder, default_hp_metric=False), callbacks=[clock],
        )  # fmt: skip
    seconds = time.perf_counter() - whole
    return Sweeps(clock.seconds, seconds, list(module.network.layers.parameters()))


class _SweepClock(L.Callback):
    """Seconds of each epoch's training, its validation left out."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._validation = 0.0
        self._start = 0.0
        self._validation_start = 0.0

    def on_train_epoch_start(self, *_: object) -> None:
        self._start, self._validation = time.perf_counter(), 0.0

    def on_validation_start(self, *_: object) -> None:
        self._validation_start = time.perf_counter()

    def on_validation_end(self, *_: object) -> None:
        self._validation = time.perf_counter() - self._validation_start

    def on_train_epoch_end(self, *_: object) -> None:
        self.seconds.append(time.perf_counter() - self._start - self._validation)


def _bare_loss(parts: FixedPointModule, contexts: Tensor, batch: TokenBatch) -> Tensor:
    """The loss of a batch, whose contexts are replaced by the sweep's."""
    embeddings = parts.network.embed(batch.tokens)
    previous = contexts[batch.row_index]
    swept = sweep(parts.network, previous, embeddings)
    corrected = quasi_newton_step(parts.network, previous, swept.detach(), embeddings)
    contexts[batch.row_index] = corrected.to(contexts.dtype)
    diversity = parts.diversity(parts.statistics(swept.flatten(0, 1)))
    weight = parts.config.dist_reg_weight
    return (1 - weight) * residuals(previous, swept).mean() + weight * diversity


def _compare(name: str, config: Config, options: argparse.Namespace) -> None:
    datamodule = TokenDataModule(config)
    datamodule.setup()
    dtype = torch.bfloat16 if config.precision == "bf16-mixed" else torch.float32
    runs: dict[str, list[Sweeps]] = {"bare": [], "ours": []}
    rates = [product_rate(dtype)]
    for _ in range(options.repetitions):
        for kind, train in (("bare", train_bare), ("ours", train_ours)):
            runs[kind].append(train(config, datamodule))
            rates.append(product_rate(dtype))
    _print_case(name, config, datamodule, runs, rates)


def _print_case(
    name: str,
    config: Config,
    datamodule: TokenDataModule,
    runs: Mapping[str, list[Sweeps]],
    rates: list[float],
) -> None:
    num_tokens = datamodule.train_rows.tokens.numel()
    count = flops(config)
    rate = statistics.median(rates)
    print(
        f"\n{name}: {config.memory}, {config.diversity_loss}, {config.num_layers} layers, C = "
        f"{config.context_dim}, E = {config.embed_dim}; {num_tokens:,} tokens, "
        f"{config.batch_size * config.max_seq_length} a step, {config.phase1_max_epochs} sweeps\n"
        f"  matrix product {rate / 1e9:.0f} GFLOP/s (median; best {max(rates) / 1e9:.0f}); MFLOP a "
        f"token: formula {count.formula / 1e6:.1f}, exact {count.exact / 1e6:.1f}, diversity's "
        f"moments {count.diversity / 1e6:.1f} more"
    )
    floors = {
        "floor, formula": count.formula,
        "floor, exact": count.exact,
        "floor, with moments": count.exact + count.diversity,
    }
    for text, flops_a_token in floors.items():
        print(f"  {text:20} {num_tokens * flops_a_token / rate:8.4f} s a sweep")
    for kind, repeated in runs.items():
        seconds = [second for run in repeated for second in run.seconds[1:]]
        median = statistics.median(seconds)
        shares = (num_tokens * flops_a_token / rate / median for flops_a_token in floors.values())
        whole = statistics.median(run.whole for run in repeated)
        print(
            f"  {kind:20} {median:8.4f} s a sweep (best {min(seconds):.4f}); share of the rate: "
            + ", ".join(f"{share:.1%}" for share in shares)
            + f"; whole {whole:.2f} s"
        )
    print(f"  ours / bare: {_ratios(runs)}; weights differ by {_difference(runs):.1e}", flush=True)


def _ratios(runs: Mapping[str, list[Sweeps]]) -> str:
    """Of the medians of neighbouring runs, which met the same load, and of the best sweeps."""
    pairs = [
        statistics.median(ours.seconds[1:]) / statistics.median(bare.seconds[1:])
        for ours, bare in zip(runs["ours"], runs["bare"], strict=True)
    ]
    best = [min(min(run.seconds) for run in runs[kind]) for kind in ("ours", "bare")]
    return f"median {statistics.median(pairs):.3f}, of the best sweeps {best[0] / best[1]:.3f}"


def _difference(runs: Mapping[str, list[Sweeps]]) -> float:
    ours, bare = runs["ours"][-1].weights, runs["bare"][-1].weights
    return max(float((a - b).detach().abs().max()) for a, b in zip(ours, bare, strict=True))


def _config(config: Config, options: argparse.Namespace) -> Config:
    return dataclasses.replace(
        config, accelerator="cpu", phase1_max_epochs=options.sweeps, memory=options.memory,
        diversity_loss=options.loss, precision=options.precision, phase1_min_converged_ratio=1.0,
        batch_size=options.batch_size or config.batch_size, phase1_learning_rate=1e-3,
    )  # fmt: skip


def _options() -> argparse.Namespace:
    default = Config()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--sweeps", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--precision", default=default.precision)
    parser.add_argument("--memory", default=default.memory)
    parser.add_argument("--loss", default=default.diversity_loss)
    parser.add_argument("--batch-size", type=int, help="sequences in a step; else the case's own")
    return parser.parse_args()


if __name__ == "__main__":
    main()
