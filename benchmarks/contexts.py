"""What Phase 1 makes of contexts: rank, convergence, sweeps and memory on unseen text.

    python benchmarks/contexts.py --losses log_det --weights 0.5 --memories gated --layers 1 6
    python benchmarks/contexts.py --seeds 0 --plot docs/contexts.png
    python benchmarks/contexts.py --invariance --weights 0.1 0.5 0.9

50 x 128 training and 50 x 128 unseen validation tokens of the default corpus, C = 768, 10 sweeps,
the configuration's own values otherwise. Nothing is pruned. `--invariance` varies the momentum and
the batch of Phase 1 instead, at an equal number of optimiser steps; Phase 2 is the same after each.
"""

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

from benchmarks.phases import make_phase1, train_phase2
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
from models.fixed_point import solve
from models.sweeps import quasi_newton_step, residuals, sweep
from tuning.training import quieten

_ROWS = 50
_TOLERANCE = 1e-4
_MAX_SWEEPS = 64
_LOSSES: tuple[DiversityLoss, ...] = ("covariance", "variance_covariance", "log_det", "dispersion")
_WEIGHTS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
_INVARIANCE_ROWS = 128
_INVARIANCE_STEPS = 128


class Setting(NamedTuple):
    """A row of the table."""

    memory: Memory
    num_layers: int
    loss: DiversityLoss
    weight: float


class Figures(NamedTuple):
    """What one run of Phase 1 gave; all but rank_train on unseen tokens.

    rank_train, rank_val: effective rank, shares of C. converged: share of positions that have
    converged at the default threshold in the last sweep. sweeps: of the quasi-Newton method until
    every position's residual is below 1e-4; infinite where 64 do not suffice. memory: tokens back
    to which a changed token is felt in 5 % of the context.
    """

    rank_train: float
    rank_val: float
    converged: float
    sweeps: float
    cosine: float
    token_sensitivity: float
    memory: float
    seconds: float


Table = dict[Setting, list[Figures]]


def main() -> None:
    options = _options()
    quieten()
    torch.set_num_threads(options.threads)
    if options.invariance:
        print_invariance(options)
        return
    settings = [
        Setting(*values)
        for values in itertools.product(
            options.memories, options.layers, options.losses, options.weights
        )
    ]
    table = print_table(settings, options.seeds, options.records)
    if options.plot is not None:
        draw(table if options.records is None else read(options.records)).savefig(
            options.plot, dpi=150
        )


def print_table(settings: Iterable[Setting], seeds: list[int], records: Path | None) -> Table:
    """Measures every setting under every seed; each run is added to the records, a line a run."""
    print(
        "memory   layers loss                weight   rank: train   val  (worst)  converged (worst)"
        "  sweeps worst  |cos| tokens  memory    s"
    )
    table: Table = {}
    for setting in settings:
        table[setting] = []
        for seed in seeds:
            module, datamodule, seconds, converged = train(config_of(setting, seed))
            table[setting].append(figures(module, datamodule, seconds, converged))
            if records is not None:
                with records.open("a") as file:
                    print(json.dumps([setting, table[setting][-1]]), file=file)
        print(line(setting, table[setting]), flush=True)
    return table


def config_of(setting: Setting, seed: int) -> Config:
    """The configuration's own values at the benchmark's sizes; for `residual`, its former own."""
    config = dataclasses.replace(
        Config(), memory=setting.memory, num_layers=setting.num_layers, random_seed=seed,
        diversity_loss=setting.loss, dist_reg_weight=setting.weight,
        num_samples=_ROWS, num_val_samples=_ROWS, phase1_max_epochs=10,
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
    contexts = solve(network, embeddings, tolerance=1, max_sweeps=1, method="scan").contexts
    report = inspect_mapping(network, contexts, embeddings)
    return Figures(
        rank_train=rank_of(module, datamodule.train_rows.tokens),
        rank_val=effective_rank(contexts.flatten(0, 1)) / network.context_dim,
        converged=converged,
        sweeps=sweeps_to_tolerance(module, embeddings),
        cosine=report.context_cosine,
        token_sensitivity=report.token_sensitivity,
        memory=memory_length(context_sensitivity(network, embeddings)),
        seconds=seconds,
    )


@torch.no_grad()
def sweeps_to_tolerance(module: FixedPointModule, embeddings_BTE: torch.Tensor) -> float:
    """Quasi-Newton sweeps from zeros until the largest residual is below the tolerance."""
    network = module.network
    contexts_BTC = embeddings_BTE.new_zeros(*embeddings_BTE.shape[:2], network.context_dim)
    for num_sweeps in range(1, _MAX_SWEEPS + 1):
        swept_BTC = sweep(network, contexts_BTC, embeddings_BTE)
        if residuals(contexts_BTC, swept_BTC).max() < _TOLERANCE:
            return num_sweeps
        contexts_BTC = quasi_newton_step(network, contexts_BTC, swept_BTC, embeddings_BTE)
    return float("inf")


@torch.no_grad()
def rank_of(module: FixedPointModule, tokens_BT: torch.Tensor) -> float:
    """Effective rank of a text's contexts, as a share of C."""
    network = module.network
    embeddings = network.embed(tokens_BT)
    contexts = solve(network, embeddings, tolerance=1, max_sweeps=1, method="scan").contexts
    return effective_rank(contexts.flatten(0, 1)) / network.context_dim


def line(setting: Setting, runs: list[Figures]) -> str:
    mean = Figures(*(statistics.mean(values) for values in zip(*runs, strict=True)))
    worst = max(run.sweeps for run in runs)
    sweeps = (
        f"{mean.sweeps:6.1f} {worst:5.0f}" if worst < float("inf") else f"   > {_MAX_SWEEPS}    "
    )
    return (
        f"{setting.memory:8} {setting.num_layers:6} {setting.loss:19} {setting.weight:6} "
        f"{mean.rank_train:13.4f} {mean.rank_val:6.4f} ({min(run.rank_val for run in runs):.4f}) "
        f"{mean.converged:9.4f} ({min(run.converged for run in runs):.4f}) {sweeps} "
        f"{mean.cosine:7.3f} {mean.token_sensitivity:6.3f} {mean.memory:6.1f} {mean.seconds:6.1f}"
    )


def print_invariance(options: argparse.Namespace) -> None:
    """Momenta and batches: 128 x 128 training tokens, 128 optimiser steps of Phase 1."""
    print(
        "loss                weight  momentum  batch tokens  rank: train   val  val_ppl"
        "  each seed's rank and val_ppl"
    )
    for loss, weight, momentum, rows in itertools.product(
        options.losses, options.weights, options.momenta, options.batches
    ):
        runs = []
        for seed in options.seeds:
            config = dataclasses.replace(
                config_of(Setting("gated", 1, loss, weight), seed), ema_momentum=momentum,
                num_samples=_INVARIANCE_ROWS, num_val_samples=1, batch_size=rows,
                phase1_max_epochs=_INVARIANCE_STEPS * rows // _INVARIANCE_ROWS,
            )  # fmt: skip
            runs.append(ranks_and_perplexity(config))
        train_mean, val_mean, ppl_mean = (statistics.mean(part) for part in zip(*runs, strict=True))
        each = " ".join(f"{val:.4f} {perplexity:.2f}" for _, val, perplexity in runs)
        print(
            f"{loss:19} {weight:6} {momentum:9} {rows * config.max_seq_length:13} "
            f"{train_mean:12.4f} {val_mean:6.4f} {ppl_mean:8.2f}  {each}",
            flush=True,
        )


def ranks_and_perplexity(config: Config) -> tuple[float, float, float]:
    """Effective rank on training and on unseen text, which no sweep is spent on, and `val_ppl`."""
    module, datamodule, _, _ = train(config)
    phase2 = dataclasses.replace(config, num_val_samples=64, batch_size=Config.batch_size)
    unseen = TokenDataModule(phase2)
    unseen.setup()
    with contextlib.redirect_stderr(io.StringIO()):
        _, val_ppl = train_phase2(module, unseen, phase2)
    val_tokens = unseen.val_rows.tokens[:_ROWS]
    return rank_of(module, datamodule.train_rows.tokens), rank_of(module, val_tokens), val_ppl


def read(records: Path) -> Table:
    """All runs that were recorded, by setting."""
    table: Table = {}
    for text in records.read_text().splitlines():
        setting, run = json.loads(text)
        table.setdefault(Setting(*setting), []).append(Figures(*run))
    return table


def draw(table: Table) -> "matplotlib.figure.Figure":
    """Effective rank against sweeps, a point a setting, the mean of its seeds; aims enlarged."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(10, 4.5), layout="constrained")
    everything, enlarged = figure.subplots(1, 2)
    for axes in (everything, enlarged):
        _draw_points(axes, table)
        axes.axhline(0.95, color="tab:gray", linestyle="--")
        axes.axvline(16, color="tab:gray", linestyle="--")
        axes.set(xlabel=f"sweeps to a residual of {_TOLERANCE:g} ({_MAX_SWEEPS}: or more)")
    everything.set(ylabel="effective rank on unseen tokens, share of C")
    enlarged.set(xlim=(3, 18), ylim=(0.935, 0.965), title="enlarged, with weights of diversity")
    everything.set(title="aimed at: above and left of the lines")
    unique = dict(zip(*reversed(everything.get_legend_handles_labels()), strict=True))
    everything.legend(unique.values(), unique.keys(), fontsize=7)
    for setting, runs in table.items():
        enlarged.annotate(
            f"{setting.weight:g}", _point(runs), xytext=(3, 3), fontsize=7,
            textcoords="offset points", annotation_clip=True, rotation=45,
        )  # fmt: skip
    return figure


def _draw_points(axes: "matplotlib.axes.Axes", table: Table) -> None:
    colours = dict(zip(_LOSSES, ("tab:orange", "tab:green", "tab:blue", "tab:red"), strict=True))
    for setting, runs in table.items():
        colour = colours[setting.loss]
        axes.plot(
            *_point(runs), "o" if setting.memory == "gated" else "s", color=colour,
            markerfacecolor=colour if setting.num_layers == 1 else "none",
            label=f"{setting.memory}, layers: {setting.num_layers}, {setting.loss}",
        )  # fmt: skip


def _point(runs: list[Figures]) -> tuple[float, float]:
    sweeps = statistics.mean(min(run.sweeps, _MAX_SWEEPS) for run in runs)
    return sweeps, statistics.mean(run.rank_val for run in runs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--weights", type=float, nargs="+", default=list(_WEIGHTS))
    parser.add_argument("--losses", nargs="+", choices=_LOSSES, default=list(_LOSSES))
    parser.add_argument("--memories", nargs="+", default=["gated"])
    parser.add_argument("--layers", type=int, nargs="+", default=[1])
    parser.add_argument("--invariance", action="store_true", help="vary momentum and batch instead")
    parser.add_argument("--momenta", type=float, nargs="+", default=[0.0, 0.9, 0.99])
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 16, 64], help="in rows")
    parser.add_argument("--records", type=Path, help="file that runs are added to and drawn from")
    parser.add_argument("--plot", type=Path, help="PNG to draw rank against sweeps to")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


if __name__ == "__main__":
    main()
