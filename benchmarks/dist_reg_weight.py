"""`val_ppl` against fixed values of `dist_reg_weight`, several seeds each, nothing pruned.

Answers whether a study of these sizes ranks signal: the spread over the values is compared with
the spread over seeds. The control leaves Phase 1 out: its token head reads an untrained F.

    python benchmarks/dist_reg_weight.py
    python benchmarks/dist_reg_weight.py --weights 0.05 0.5 --seeds 0 1 --num-samples 64
"""

import dataclasses
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lightning as L
import torch

if TYPE_CHECKING:
    import matplotlib.figure

from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import metric_names as names
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.token_prediction_module import TokenPredictionModule
from tuning.training import NO_LOGGER, fit_phase


@dataclass(frozen=True)
class Grid:
    """What to measure."""

    weights: tuple[float, ...] = (0.01, 0.02, 0.035, 0.06, 0.12, 0.25, 0.5, 0.99)
    """Values of dist-reg-weight."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Values of random-seed."""
    control: bool = True
    """Measure an untrained F as well."""
    plot: Path | None = None
    """PNG to draw the table to."""


class Cell(NamedTuple):
    """One training: lowest `val_ppl`, figures of Phase 1's last validation, seconds."""

    val_ppl: float
    phase1: dict[str, float]
    seconds: float


class LowestPerplexity(L.Callback):
    """Keeps the lowest `val_ppl` of a phase's epochs."""

    def __init__(self) -> None:
        self.value = float("inf")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.value = min(self.value, float(trainer.callback_metrics[names.VAL_PPL]))


def measure(config: Config, datamodule: TokenDataModule, *, phase1: bool) -> Cell:
    """Trains once, as a trial does; without Phase 1, its weights stay as they were drawn."""
    start = time.monotonic()
    L.seed_everything(config.random_seed, verbose=False)
    module = FixedPointModule(config, datamodule.vocab_size)
    figures: dict[str, float] = {}
    if phase1:
        trainer = fit_phase(
            module, datamodule, config=config, num_epochs=config.phase1_max_epochs,
            logger=NO_LOGGER, callbacks=[],
        )  # fmt: skip
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    lowest = LowestPerplexity()
    fit_phase(
        TokenPredictionModule.from_phase1(module, datamodule.vocab_size), datamodule,
        config=config, num_epochs=config.phase2_epochs, logger=NO_LOGGER, callbacks=[lowest],
    )  # fmt: skip
    return Cell(lowest.value, figures, time.monotonic() - start)


def row(label: str, cells: list[Cell]) -> str:
    """A line of the table: mean and standard deviation over seeds, then Phase 1 of the first."""
    values = [cell.val_ppl for cell in cells]
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    figures = " ".join(
        f"{cells[0].phase1.get(name, float('nan')):9.3f}"
        for name in (
            names.PHASE1_EFFECTIVE_RANK_RATIO, names.PHASE1_CONTEXT_COSINE,
            names.PHASE1_TOKEN_SENSITIVITY, names.PHASE1_VAL_CONVERGED_RATIO,
        )
    )  # fmt: skip
    seconds = statistics.median(cell.seconds for cell in cells)
    each = " ".join(f"{value:7.2f}" for value in values)
    mean = statistics.mean(values)
    return f"{label:>9} {mean:8.2f} {deviation:6.2f}  {figures} {seconds:7.1f}   {each}"


def main() -> None:
    def options(
        grid: Annotated[Grid, tyro.conf.arg(name="")],
        config: Annotated[Config, tyro.conf.arg(name="")] = Config(),  # noqa: B008  # frozen
    ) -> tuple[Grid, Config]:
        return grid, config

    grid, config = tyro.cli(options)
    datamodule = TokenDataModule(config)
    datamodule.setup()
    print(datamodule.describe())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("   weight  val_ppl     sd       rank     |cos|    tokens converged seconds   each seed")
    table: dict[float, list[Cell]] = {}
    for weight in grid.weights:
        table[weight] = measure_seeds(
            dataclasses.replace(config, dist_reg_weight=weight), datamodule, grid, phase1=True
        )
        print(row(f"{weight:g}", table[weight]), flush=True)
    control: list[Cell] = []
    if grid.control:
        control = measure_seeds(config, datamodule, grid, phase1=False)
        print(row("untrained", control), flush=True)
    print(compare_spreads(table))
    if grid.plot is not None:
        draw(table, control, config.min_effective_rank).savefig(grid.plot, dpi=150)


def measure_seeds(
    config: Config, datamodule: TokenDataModule, grid: Grid, *, phase1: bool
) -> list[Cell]:
    """One training for each seed; the data are the same, their order is not."""
    cells = []
    for seed in grid.seeds:
        seeded = dataclasses.replace(config, random_seed=seed)
        datamodule.config = seeded
        cells.append(measure(seeded, datamodule, phase1=phase1))
    return cells


def compare_spreads(table: dict[float, list[Cell]]) -> str:
    """Standard deviation of the means over weights, against the pooled one over seeds."""
    values = [[cell.val_ppl for cell in cells] for cells in table.values()]
    means = [statistics.mean(of_weight) for of_weight in values]
    if len(means) < 2 or len(values[0]) < 2:
        return "one weight or one seed: no spread to compare"
    pooled = statistics.mean(statistics.variance(of_weight) for of_weight in values) ** 0.5
    spread = statistics.stdev(means)
    return (
        f"standard deviation over weights {spread:.2f}, over seeds {pooled:.2f}: "
        f"ratio {spread / pooled:.1f}; range over weights {max(means) - min(means):.2f}"
    )


def draw(
    table: dict[float, list[Cell]], control: list[Cell], min_effective_rank: float
) -> "matplotlib.figure.Figure":
    """`val_ppl` of every training against the weight; hollow where its rank would be pruned."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for weight, cells in table.items():
        for cell in cells:
            kept = cell.phase1[names.PHASE1_EFFECTIVE_RANK_RATIO] >= min_effective_rank
            face = "tab:blue" if kept else "none"
            axes.plot(weight, cell.val_ppl, "o", color="tab:blue", markerfacecolor=face)
    if control:
        mean = statistics.mean(cell.val_ppl for cell in control)
        axes.axhline(mean, color="tab:gray", linestyle="--", label="untrained F (Phase 1 left out)")
        axes.legend()
    axes.set(xscale="log", xlabel="dist_reg_weight", ylabel="val_ppl")
    axes.set_title("One dot a seed; hollow: below the minimum of effective rank")
    return figure


if __name__ == "__main__":
    main()
