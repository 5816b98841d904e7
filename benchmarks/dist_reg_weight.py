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
from typing import Annotated, NamedTuple

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lightning as L
import torch

from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import metric_names as names
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.token_prediction_module import TokenPredictionModule
from tuning.self_test import NO_LOGGER
from tuning.training import fit_phase


@dataclass(frozen=True)
class Grid:
    """What to measure."""

    weights: tuple[float, ...] = (0.01, 0.03, 0.06, 0.1, 0.2, 0.4, 0.7, 0.99)
    """Values of dist-reg-weight."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Values of random-seed."""
    control: bool = True
    """Measure an untrained F as well."""


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
    means, deviations = [], []
    for weight in (*grid.weights, *((None,) if grid.control else ())):
        cells = []
        for seed in grid.seeds:
            changed = dataclasses.replace(config, random_seed=seed)
            if weight is not None:
                changed = dataclasses.replace(changed, dist_reg_weight=weight)
            datamodule.config = changed
            cells.append(measure(changed, datamodule, phase1=weight is not None))
        print(row("untrained" if weight is None else f"{weight:g}", cells), flush=True)
        if weight is not None:
            means.append(statistics.mean(cell.val_ppl for cell in cells))
            deviations.append(statistics.stdev(cell.val_ppl for cell in cells))
    pooled = statistics.mean(value**2 for value in deviations) ** 0.5
    spread = statistics.stdev(means)
    print(
        f"standard deviation over weights {spread:.2f}, over seeds {pooled:.2f}: "
        f"ratio {spread / pooled:.1f}; range over weights {max(means) - min(means):.2f}"
    )


if __name__ == "__main__":
    main()
