"""What Phase 1 makes of contexts: rank, convergence, sweeps and memory on unseen text.

    python benchmarks/contexts.py --losses log_det --weights 0.5 --memories gated --layers 1 6
    python benchmarks/contexts.py --seeds 0 --plot docs/contexts.png

50 x 128 training and 50 x 128 unseen validation tokens of the default corpus, C = 768, 10 sweeps,
the configuration's own values otherwise. Nothing is pruned.
"""

import contextlib
import dataclasses
import io
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.context_plot import Figures, Setting, Table, draw, read
from benchmarks.options import parse, run
from benchmarks.phases import make_phase1
from benchmarks.solving import MAX_SWEEPS, exact_contexts, sweeps_to_tolerance
from config import Config, DiversityLoss, Memory
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import metric_names as names
from lightning_modules.fixed_point_module import FixedPointModule
from models.diagnostics import (
    context_sensitivity,
    effective_rank,
    inspect_mapping,
    memory_length,
)
from tuning.training import quieten

SMALL = Config(num_samples=50, num_val_samples=50, phase1_max_epochs=10)


@dataclass(frozen=True)
class Options:
    """What to measure."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Values of random-seed; means are shown."""
    weights: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
    """Values of dist-reg-weight."""
    losses: tuple[DiversityLoss, ...] = (
        "covariance", "variance_covariance", "log_det", "dispersion",
    )  # fmt: skip
    """Diversity losses."""
    memories: tuple[Memory, ...] = ("gated",)
    """Values of memory."""
    layers: tuple[int, ...] = (1,)
    """Values of num-layers."""
    records: Path | None = None
    """File that runs are added to and drawn from."""
    plot: Path | None = None
    """PNG to draw rank against sweeps to."""
    threads: int | None = None
    """Of torch; its own number where not given."""


def main() -> int:
    options, config = parse(Options, __doc__, SMALL)
    quieten()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    settings = [
        Setting(*values)
        for values in itertools.product(
            options.memories, options.layers, options.losses, options.weights
        )
    ]
    table = print_table(settings, config, options.seeds, options.records)
    if options.plot is not None:
        draw(table if options.records is None else read(options.records)).savefig(
            options.plot, dpi=150
        )
    return 0


def print_table(
    settings: Iterable[Setting], config: Config, seeds: Iterable[int], records: Path | None
) -> Table:
    """Measures every setting under every seed; each run is added to the records, a line a run."""
    print(
        "memory   layers loss                weight   rank: train   val  (worst)  converged (worst)"
        "  sweeps worst  |cos| tokens  memory    s"
    )
    table: Table = {}
    for setting in settings:
        table[setting] = []
        for seed in seeds:
            module, datamodule, seconds, converged = train(config_of(config, setting, seed))
            table[setting].append(figures(module, datamodule, seconds, converged))
            if records is not None:
                with records.open("a") as file:
                    print(json.dumps([setting, table[setting][-1]]), file=file)
        print(line(setting, table[setting]), flush=True)
    return table


def config_of(config: Config, setting: Setting, seed: int) -> Config:
    """A setting in the benchmark's sizes; `residual` has the values that were its own."""
    config = dataclasses.replace(
        config, memory=setting.memory, num_layers=setting.num_layers, random_seed=seed,
        diversity_loss=setting.loss, dist_reg_weight=setting.weight,
    )  # fmt: skip
    if setting.memory == "gated":
        return config
    return dataclasses.replace(
        config, update_scale=0.5, phase1_learning_rate=3e-3, ema_momentum=0.99,
        contraction_weight=0, neighbour_share=0,
    )  # fmt: skip


def train(config: Config) -> tuple[FixedPointModule, TokenDataModule, float, float]:
    """Phase 1, the data it saw, its seconds, and the converged ratio on unseen text at its end."""
    datamodule = TokenDataModule(config)
    datamodule.setup("fit")
    start = time.monotonic()
    with contextlib.redirect_stderr(io.StringIO()):
        phase1 = make_phase1(config, datamodule, "trained")
    converged = phase1.figures[names.PHASE1_VAL_CONVERGED_RATIO]
    return phase1.module, datamodule, time.monotonic() - start, converged


@torch.no_grad()
def figures(
    module: FixedPointModule, datamodule: TokenDataModule, seconds: float, converged: float
) -> Figures:
    network = module.network
    embeddings = network.embed(datamodule.val_rows.tokens)
    contexts = exact_contexts(network, embeddings)
    report = inspect_mapping(network, contexts, embeddings)
    return Figures(
        rank_train=rank_of(module, datamodule.train_rows.tokens),
        rank_val=effective_rank(contexts.flatten(0, 1)) / network.context_dim,
        converged=converged,
        sweeps=sweeps_to_tolerance(network, embeddings),
        cosine=report.context_cosine,
        token_sensitivity=report.token_sensitivity,
        memory=memory_length(context_sensitivity(network, embeddings)),
        seconds=seconds,
    )


@torch.no_grad()
def rank_of(module: FixedPointModule, tokens_BT: torch.Tensor) -> float:
    """Effective rank of a text's contexts, as a share of C."""
    network = module.network
    contexts_BTC = exact_contexts(network, network.embed(tokens_BT))
    return effective_rank(contexts_BTC.flatten(0, 1)) / network.context_dim


def line(setting: Setting, runs: list[Figures]) -> str:
    mean = Figures(*(statistics.mean(values) for values in zip(*runs, strict=True)))
    worst = max(run.sweeps for run in runs)
    sweeps = (
        f"{mean.sweeps:6.1f} {worst:5.0f}" if worst < float("inf") else f"   > {MAX_SWEEPS}    "
    )
    return (
        f"{setting.memory:8} {setting.num_layers:6} {setting.loss:19} {setting.weight:6} "
        f"{mean.rank_train:13.4f} {mean.rank_val:6.4f} ({min(run.rank_val for run in runs):.4f}) "
        f"{mean.converged:9.4f} ({min(run.converged for run in runs):.4f}) {sweeps} "
        f"{mean.cosine:7.3f} {mean.token_sensitivity:6.3f} {mean.memory:6.1f} {mean.seconds:6.1f}"
    )


if __name__ == "__main__":
    run(main)
