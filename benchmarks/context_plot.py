"""What `benchmarks/contexts.py` measured: its figures, the file that keeps them, and their plot."""

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.solving import MAX_SWEEPS, TOLERANCE
from config import DiversityLoss, Memory

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

_COLOURS: dict[DiversityLoss, str] = {
    "covariance": "tab:orange", "variance_covariance": "tab:green", "log_det": "tab:blue",
    "dispersion": "tab:red",
}  # fmt: skip


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
        axes.set(xlabel=f"sweeps to a residual of {TOLERANCE:g} ({MAX_SWEEPS}: or more)")
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
    for setting, runs in table.items():
        colour = _COLOURS[setting.loss]
        axes.plot(
            *_point(runs), "o" if setting.memory == "gated" else "s", color=colour,
            markerfacecolor=colour if setting.num_layers == 1 else "none",
            label=f"{setting.memory}, layers: {setting.num_layers}, {setting.loss}",
        )  # fmt: skip


def _point(runs: list[Figures]) -> tuple[float, float]:
    sweeps = statistics.mean(min(run.sweeps, MAX_SWEEPS) for run in runs)
    return sweeps, statistics.mean(run.rank_val for run in runs)
