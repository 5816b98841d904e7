"""Curves of a run of train.py as a picture, from what it left in its folder.

    python train.py … --run-dir runs/full
    python benchmarks/run_curves.py --run-dir runs/full --plot docs/full_length.png \\
        --lines kneser-ney=56.1

Left: Phase 1 by sweep, how far contexts have arrived and spread. Right: Phase 2 by tokens read, the
perplexity of training, of dropout and of what is smoothed as it is trained on, each point the mean
of a hundredth of all steps, and `val_ppl` after every epoch.
"""

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

from benchmarks.options import parse_alone, run
from config import InputError
from lightning_modules import metric_names as names
from tuning.metrics_file import read_rows
from tuning.run_folder import stored_config, stored_options

_NUM_POINTS = 100
_RATIOS = {
    names.PHASE1_CONVERGED_RATIO: "converged, training",
    names.PHASE1_VAL_CONVERGED_RATIO: "converged, unseen text",
    names.PHASE1_EFFECTIVE_RANK_RATIO: "effective rank / C, unseen text",
}


@dataclass(frozen=True)
class Options:
    """What to draw."""

    run_dir: Path
    """Folder of the run."""
    plot: Path
    """PNG to write."""
    lines: tuple[str, ...] = ()
    """Perplexities to compare with, NAME=PPL."""


class Curve(NamedTuple):
    """A figure's values, and the optimiser steps, from 1, after which they were taken."""

    steps: list[int]
    values: list[float]

    def thinned(self, num_points: int) -> "Curve":
        """Means over neighbouring values, at the last step of each."""
        size = math.ceil(len(self.values) / num_points)
        starts = range(0, len(self.values), size)
        means = [statistics.fmean(self.values[start : start + size]) for start in starts]
        return Curve([self.steps[start : start + size][-1] for start in starts], means)


def main() -> None:
    options = parse_alone(Options, __doc__)
    if not options.plot.resolve().parent.is_dir():
        raise InputError(f"--plot {options.plot} must be a file in a folder that exists.")
    others = _parse_lines(options.lines)
    figure = draw(options.run_dir, others)
    figure.savefig(options.plot, dpi=150)


def read_curve(metrics: Path, name: str) -> Curve:
    """A column of a metrics.csv; rows that lack it are left out."""
    rows = [row for row in read_rows(metrics) if row.get(name)]
    return Curve([int(row["step"]) + 1 for row in rows], [float(row[name]) for row in rows])


def draw(run_dir: Path, others: dict[str, float]) -> "matplotlib.figure.Figure":
    """Both phases of a run.

    Raises:
        InputError: the folder is no run's, or one in which Phase 2 has not ended an epoch.
    """
    import matplotlib.figure

    phase1, phase2 = (run_dir / phase / "metrics.csv" for phase in ("phase1", "phase2"))
    if not phase2.is_file() or not read_curve(phase2, names.VAL_PPL).values:
        raise InputError(
            f"--run-dir {run_dir} must be the folder of a run that has ended an epoch of Phase 2."
        )
    config, options = stored_config(run_dir), stored_options(run_dir)
    tokens_of_step = config.batch_size * config.max_seq_length * options.accumulate_grad_batches
    figure = matplotlib.figure.Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_phase1(left, phase1)
    _draw_phase2(right, phase2, tokens_of_step / 1e6, others)
    return figure


def _draw_phase1(axes: "matplotlib.axes.Axes", metrics: Path) -> None:
    num_steps = read_curve(metrics, names.PHASE1_RESIDUAL).steps[0]
    for name, label in _RATIOS.items():
        curve = read_curve(metrics, name)
        axes.plot([step / num_steps for step in curve.steps], curve.values, "o-", label=label)
    axes.set(title="Phase 1", xlabel="sweep", ylabel="share", ylim=(-0.02, 1.02))
    axes.locator_params(axis="x", integer=True)
    axes.legend(fontsize=8)


def _draw_phase2(
    axes: "matplotlib.axes.Axes", metrics: Path, millions_of_step: float, others: dict[str, float]
) -> None:
    from matplotlib.ticker import StrMethodFormatter

    def plot(curve: Curve, form: str, label: str) -> None:
        axes.plot(
            [step * millions_of_step for step in curve.steps], curve.values, form, label=label
        )

    losses = read_curve(metrics, names.STEP_LOSS).thinned(_NUM_POINTS)
    plot(losses._replace(values=[math.exp(loss) for loss in losses.values]), "-", "training")
    val_ppl = read_curve(metrics, names.VAL_PPL)
    plot(val_ppl, "o", "val_ppl")
    for step, value in zip(*val_ppl, strict=True):
        axes.annotate(
            f"{value:.1f}",
            (step * millions_of_step, value),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
        )
    for name, value in others.items():
        axes.axhline(value, color="tab:gray", linestyle="--", linewidth=1)
        axes.annotate(f"{name} {value:g}", (0, value), xytext=(2, 3), textcoords="offset points")
    axes.set(title="Phase 2", xlabel="million tokens read", ylabel="perplexity", yscale="log")
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    axes.legend(fontsize=8)


def _parse_lines(pairs: Sequence[str]) -> dict[str, float]:
    others = {}
    for pair in pairs:
        name, _, text = pair.rpartition("=")
        try:
            others[name] = float(text)
        except ValueError:
            others[name] = math.nan
        if not name or not 0 < others[name] < math.inf:
            raise InputError(f"--lines {pair!r} must be NAME=PPL, PPL a positive number.")
    return others


if __name__ == "__main__":
    run(main)
