"""Learning curves of the comparison: validation perplexity by epoch and by wall time."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from benchmarks.baselines.records import Cell

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

_BY = ("epoch", "seconds, Phase 1 and validations included")


def draw_curves(cells: Sequence[Cell]) -> "matplotlib.figure.Figure":
    """A row for each number of training tokens; a line for each model, its first seed.

    Kneser-Ney, which has no epochs, is a horizontal line. Cells without a curve are left out.
    """
    import matplotlib.figure
    from matplotlib.ticker import StrMethodFormatter

    sizes = sorted({cell.settings["tokens"] for cell in cells})
    figure = matplotlib.figure.Figure(figsize=(10, 4.5 * len(sizes)), layout="constrained")
    for axes_of_size, tokens in zip(
        figure.subplots(len(sizes), 2, squeeze=False), sizes, strict=True
    ):
        of_size = [cell for cell in cells if cell.settings["tokens"] == tokens]
        for axes, xlabel in zip(axes_of_size, _BY, strict=True):
            _draw(axes, of_size, by_epoch=xlabel == _BY[0])
            axes.set(xlabel=xlabel, ylabel="val_ppl", yscale="log")
            axes.set_title(f"{tokens:,} training tokens")
        axes_of_size[1].set(xscale="log")
        for axis in (axes_of_size[0].yaxis, axes_of_size[1].yaxis, axes_of_size[1].xaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(StrMethodFormatter("{x:g}"))
        axes_of_size[0].legend(fontsize=7)
    return figure


def _draw(axes: "matplotlib.axes.Axes", cells: Iterable[Cell], *, by_epoch: bool) -> None:
    drawn = set()
    for settings, result in cells:
        model = settings["model"]
        if model == "kneser-ney":
            val_ppl = math.exp(result["val_loss"])
            axes.axhline(val_ppl, color="tab:gray", linestyle="--", label=model)
        elif "curve" in result and model not in drawn:
            drawn.add(model)
            seconds, losses = zip(*result["curve"], strict=True)
            across = range(1, len(losses) + 1) if by_epoch else seconds
            axes.plot(across, [math.exp(loss) for loss in losses], "o-", label=model, markersize=3)
