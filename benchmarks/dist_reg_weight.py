"""`val_ppl` against fixed values of `dist_reg_weight`, several seeds each, nothing pruned.

Answers whether a study of these sizes ranks signal: the spread over the values is compared with
the spread over seeds. The controls leave Phase 1 out: their token heads read an F as it was drawn
(untrained), and one that has its embedding from the training text, with which Phase 1 starts (read).

    python benchmarks/dist_reg_weight.py
    python benchmarks/dist_reg_weight.py --weights 0.05 0.5 --seeds 0 1 --num-samples 64
"""

import dataclasses
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

if TYPE_CHECKING:
    import matplotlib.figure

from benchmarks.options import parse, run
from benchmarks.phases import State, make_phase1, train_phase2
from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import metric_names as names

CONTROLS: tuple[State, ...] = ("untrained", "read")


@dataclass(frozen=True)
class Grid:
    """What to measure."""

    weights: tuple[float, ...] = (0.01, 0.02, 0.035, 0.06, 0.12, 0.25, 0.5, 0.99)
    """Values of dist-reg-weight."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Values of random-seed."""
    control: bool = True
    """Measure F without Phase 1 as well."""
    plot: Path | None = None
    """PNG to draw the table to."""


class Cell(NamedTuple):
    """One training: lowest `val_ppl`, figures of Phase 1's last validation, seconds."""

    val_ppl: float
    phase1: dict[str, float]
    seconds: float


def measure(config: Config, datamodule: TokenDataModule, state: State) -> Cell:
    """Trains once, as a trial does; Phase 2 alone where F is not trained."""
    start = time.monotonic()
    phase1 = make_phase1(config, datamodule, state)
    _, val_ppl = train_phase2(phase1.module, datamodule, config)
    return Cell(val_ppl, phase1.figures, time.monotonic() - start)


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
    grid, config = parse(Grid, __doc__)
    datamodule = TokenDataModule(config)
    datamodule.setup()
    print(datamodule.describe())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("   weight  val_ppl     sd       rank     |cos|    tokens converged seconds   each seed")
    table: dict[float, list[Cell]] = {}
    for weight in grid.weights:
        table[weight] = measure_seeds(
            dataclasses.replace(config, dist_reg_weight=weight), datamodule, grid, "trained"
        )
        print(row(f"{weight:g}", table[weight]), flush=True)
    controls: dict[State, list[Cell]] = {}
    for state in CONTROLS if grid.control else ():
        controls[state] = measure_seeds(config, datamodule, grid, state)
        print(row(state, controls[state]), flush=True)
    print(compare_spreads(table))
    if grid.plot is not None:
        draw(table, controls, config.min_effective_rank).savefig(grid.plot, dpi=150)


def measure_seeds(
    config: Config, datamodule: TokenDataModule, grid: Grid, state: State
) -> list[Cell]:
    """One training for each seed; the data are the same, their order is not."""
    return [
        measure(dataclasses.replace(config, random_seed=seed), datamodule, state)
        for seed in grid.seeds
    ]


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
    table: dict[float, list[Cell]],
    controls: dict[State, list[Cell]],
    min_effective_rank: float,
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
    for (state, cells), style in zip(controls.items(), ("--", ":"), strict=False):
        mean = statistics.mean(cell.val_ppl for cell in cells)
        axes.axhline(mean, color="tab:gray", linestyle=style, label=f"{state} F (no Phase 1)")
    if controls:
        axes.legend()
    axes.set(xscale="log", xlabel="dist_reg_weight", ylabel="val_ppl")
    axes.set_title("One dot a seed; hollow: below the minimum of effective rank")
    return figure


if __name__ == "__main__":
    run(main)
