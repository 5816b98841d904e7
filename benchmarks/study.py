"""How far a study's best is from the best of a grid, and what the pruning saves and costs.

For every seed: a study as users run it; a grid of `dist_reg_weight` of which nothing is pruned;
and the study's very parameters again with nothing pruned. The last two tell what a pruned trial
would have come to, as trainings of one seed and one parameter repeat themselves.

    python benchmarks/study.py
    python benchmarks/study.py --seeds 0 --num-trials 6 --num-points 4
"""

import dataclasses
import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import optuna
import torch

if TYPE_CHECKING:
    import matplotlib.figure

from benchmarks.options import parse, run
from benchmarks.study_judgement import Outcome, compare, complete_trials, point_of, summary
from config import Config, require
from datamodules.token_datamodule import TokenDataModule
from tuning.display import StudyDisplay
from tuning.samplers import PrunerName, SamplerName
from tuning.storage import open_storage
from tuning.study import StudyPlan, finished_trials, open_study, run_study

SMALLER = Config(num_samples=48, context_dim=256)


@dataclass(frozen=True)
class Options:
    """What to measure."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Values of random-seed: of the trainings and of the sampler."""
    num_trials: int = 30
    """Trials of a study."""
    num_points: int = 40
    """Points of the grid."""
    pruner: PrunerName = "median"
    """Of the studies' Phase 2."""
    plot: Path | None = None
    """PNG to draw grids and winners to."""

    def __post_init__(self) -> None:
        require(bool(self.seeds), "seeds", (), "one or more")
        for name in ("num_trials", "num_points"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")


def main() -> None:
    given, config = parse(Options, __doc__, SMALLER)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    datamodule = TokenDataModule(config)
    datamodule.setup()
    print(datamodule.describe())
    print(
        f"context_dim {config.context_dim}, minimum of effective rank "
        f"{config.min_effective_rank:.0%}; torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads"
    )
    print(
        "seed  study best  weight  grid best  weight  regret  passing | compute  (timed) | "
        "checked  good | pruner  good"
    )
    outcomes: list[Outcome] = []
    for seed in given.seeds:
        seeded = dataclasses.replace(config, random_seed=seed)
        datamodule.config = seeded
        outcome = measure(seeded, datamodule, given)
        if outcome is None:
            print(f"{seed:4}  no trial of the study is complete: all were pruned", flush=True)
            continue
        outcomes.append(outcome)
        print(row(outcome), flush=True)
    if not outcomes:
        return
    print(summary(outcomes))
    if given.plot is not None:
        draw(outcomes).savefig(given.plot, dpi=150)


def measure(config: Config, datamodule: TokenDataModule, options: Options) -> Outcome | None:
    """Study, grid and the study's parameters unpruned, all under the configuration's seed.

    None where the study has no complete trial, and nothing to be judged by.
    """
    unpruned = dataclasses.replace(
        config, identity_mapping_threshold=1.0, min_token_sensitivity=0.0, min_effective_rank=0.0
    )
    study = quiet_study(config, datamodule, options.num_trials, "tpe", options.pruner)
    trials = finished_trials(study)
    if not complete_trials(trials):
        return None
    grid = quiet_study(unpruned, datamodule, options.num_points, "grid", "none")

    def queue(again: optuna.Study) -> None:
        for trial in trials:
            again.enqueue_trial(trial.params, skip_if_exists=True)

    again = quiet_study(unpruned, datamodule, len(trials), "random", "none", prepare=queue)
    points = sorted(point_of(trial, config) for trial in finished_trials(grid))
    rerun = {trial.params["dist_reg_weight"]: trial for trial in finished_trials(again)}
    return compare(config, trials, points, rerun)


def quiet_study(
    config: Config,
    datamodule: TokenDataModule,
    num_trials: int,
    sampler: SamplerName,
    pruner: PrunerName,
    prepare: Callable[[optuna.Study], None] = lambda study: None,
) -> optuna.Study:
    """A study in memory that shows nothing."""
    with tempfile.TemporaryDirectory() as folder:
        plan = StudyPlan("study", num_trials, Path(folder), sampler=sampler, pruner=pruner)
        study = open_study(open_storage(None), plan, config, datamodule)
        prepare(study)
        display = StudyDisplay(Console(file=io.StringIO()))
        run_study(study, config, datamodule, plan, display)
    return study


def row(outcome: Outcome) -> str:
    """A line of the table."""
    lowest = min(outcome.grid, key=lambda point: point.val_ppl)
    return (
        f"{outcome.seed:4}  {outcome.best.val_ppl:10.2f}  {outcome.best.weight:6.4f}  "
        f"{lowest.val_ppl:9.2f}  {lowest.weight:6.4f}  {outcome.regret:6.2%}  "
        f"{outcome.regret_of_passing:7.2%} | {outcome.compute:7.1%}  "
        f"{outcome.compute_measured:7.1%} | {outcome.num_checked:7}  "
        f"{len(outcome.good_checked):4} | {outcome.num_stopped:6}  {len(outcome.good_stopped):4}"
    )


def draw(outcomes: list[Outcome]) -> "matplotlib.figure.Figure":
    """`val_ppl` of every grid against the weight, hollow where a check prunes; a star a study."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for index, outcome in enumerate(outcomes):
        colour = f"C{index}"
        axes.plot(*zip(*[point[:2] for point in outcome.grid], strict=True), color=colour, lw=0.5)
        for point in outcome.grid:
            face = colour if point.passes else "none"
            axes.plot(*point[:2], "o", ms=4, color=colour, markerfacecolor=face)
        axes.plot(*outcome.best[:2], "*", ms=14, color=colour, label=f"seed {outcome.seed}")
    axes.set(xscale="log", xlabel="dist_reg_weight", ylabel="val_ppl")
    axes.set_title("Dots: grid, hollow where a check of Phase 1 prunes; stars: best of a study")
    axes.legend()
    return figure


if __name__ == "__main__":
    run(main)
