"""How far a study's best is from the best of a grid, and what the pruning saves and costs.

For every seed: a study as users run it; a grid of `dist_reg_weight` of which nothing is pruned;
and the study's very parameters again with nothing pruned. The last two tell what a pruned trial
would have come to, as trainings of one seed and one parameter repeat themselves.

    python benchmarks/study.py
    python benchmarks/study.py --seeds 0 --num-trials 6 --num-points 4
"""

import dataclasses
import io
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    import matplotlib.figure

from callbacks.effective_rank_pruning import EffectiveRankPruning
from callbacks.identity_mapping_pruning import IdentityMappingPruning
from callbacks.verdict import PRUNING_REASON
from config import Config
from datamodules.token_datamodule import TokenDataModule
from tuning.display import StudyDisplay
from tuning.samplers import PrunerName, SamplerName
from tuning.storage import open_storage
from tuning.study import StudyPlan, finished_trials, open_study, run_study

NEAR = 1.01
"""A setting is good if its `val_ppl` is below this many times the lowest of the grid."""
CHECKS = (
    EffectiveRankPruning.LOW_RANK,
    IdentityMappingPruning.IDENTITY_MAPPING,
    IdentityMappingPruning.TOKEN_BLINDNESS,
)
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


class Point(NamedTuple):
    """One training of which nothing was pruned. `passes`: the checks of Phase 1 would let it."""

    weight: float
    val_ppl: float
    passes: bool
    effective_rank_ratio: float


class Outcome(NamedTuple):
    """What one seed gave.

    regret: of the study's best, as a share of the grid's lowest `val_ppl`. compute: share of what
    the same parameters take unpruned, each phase counted at its median seconds; compute_measured:
    by the clock. good_checked, good_stopped: pruned settings that were good, by who pruned them.
    mismatch: largest relative difference of a complete trial and its repetition.
    """

    seed: int
    best: Point
    grid: list[Point]
    regret: float
    regret_of_passing: float
    compute: float
    compute_measured: float
    num_checked: int
    num_stopped: int
    good_checked: list[Point]
    good_stopped: list[Point]
    mismatch: float


def main() -> None:
    def options(
        options: Annotated[Options, tyro.conf.arg(name="")],
        config: Annotated[Config, tyro.conf.arg(name="")] = SMALLER,
    ) -> tuple[Options, Config]:
        return options, config

    given, config = tyro.cli(options)
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
    outcomes = []
    for seed in given.seeds:
        seeded = dataclasses.replace(config, random_seed=seed)
        datamodule.config = seeded
        outcomes.append(measure(seeded, datamodule, given))
        print(row(outcomes[-1]), flush=True)
    print(summary(outcomes))
    if given.plot is not None:
        draw(outcomes).savefig(given.plot, dpi=150)


def measure(config: Config, datamodule: TokenDataModule, options: Options) -> Outcome:
    """Study, grid and the study's parameters unpruned, all under the configuration's seed."""
    unpruned = dataclasses.replace(
        config, identity_mapping_threshold=1.0, min_token_sensitivity=0.0, min_effective_rank=0.0
    )
    study = run(config, datamodule, options.num_trials, "tpe", options.pruner)
    grid = run(unpruned, datamodule, options.num_points, "grid", "none")
    trials = finished_trials(study)

    def queue(again: optuna.Study) -> None:
        for trial in trials:
            again.enqueue_trial(trial.params, skip_if_exists=True)

    again = run(unpruned, datamodule, len(trials), "random", "none", prepare=queue)
    points = sorted(point_of(trial, config) for trial in finished_trials(grid))
    rerun = {trial.params["dist_reg_weight"]: trial for trial in finished_trials(again)}
    return compare(config, trials, points, rerun)


def run(
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


def compare(
    config: Config,
    trials: list[FrozenTrial],
    grid: list[Point],
    rerun: dict[float, FrozenTrial],
) -> Outcome:
    """Judges a study by its grid and by its own parameters unpruned."""

    def unpruned(trial: FrozenTrial) -> FrozenTrial:
        return rerun[trial.params["dist_reg_weight"]]

    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = min(complete, key=value_of)
    lowest = min(point.val_ppl for point in grid)
    passing = min((point.val_ppl for point in grid if point.passes), default=float("nan"))
    checked = [trial for trial in trials if trial.user_attrs.get(PRUNING_REASON) in CHECKS]
    stopped = [
        trial for trial in trials if trial.state == TrialState.PRUNED and trial not in checked
    ]
    limit = NEAR * min([lowest, *(value_of(trial) for trial in rerun.values())])

    def good(pruned: list[FrozenTrial]) -> list[Point]:
        points = [point_of(unpruned(trial), config) for trial in pruned]
        return [point for point in points if point.val_ppl <= limit]

    phase1, phase2 = (
        statistics.median(trial.user_attrs[name] for trial in rerun.values())
        for name in ("phase1_seconds", "phase2_seconds")
    )
    epochs = sum(len(trial.intermediate_values) for trial in trials) / config.phase2_epochs
    return Outcome(
        seed=config.random_seed,
        best=point_of(best, config),
        grid=grid,
        regret=value_of(best) / lowest - 1,
        regret_of_passing=value_of(best) / passing - 1,
        compute=(phase1 * len(trials) + phase2 * epochs) / ((phase1 + phase2) * len(trials)),
        compute_measured=sum(map(seconds_of, trials))
        / sum(seconds_of(unpruned(trial)) for trial in trials),
        num_checked=len(checked),
        num_stopped=len(stopped),
        good_checked=good(checked),
        good_stopped=good(stopped),
        mismatch=max(abs(value_of(unpruned(trial)) / value_of(trial) - 1) for trial in complete),
    )


def point_of(trial: FrozenTrial, config: Config) -> Point:
    attributes = trial.user_attrs
    return Point(
        weight=trial.params["dist_reg_weight"],
        val_ppl=value_of(trial),
        passes=attributes["effective_rank_ratio"] >= config.min_effective_rank
        and attributes["context_cosine"] <= config.identity_mapping_threshold
        and attributes["token_sensitivity"] >= config.min_token_sensitivity,
        effective_rank_ratio=attributes["effective_rank_ratio"],
    )


def value_of(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def seconds_of(trial: FrozenTrial) -> float:
    assert trial.duration is not None
    return trial.duration.total_seconds()


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


def summary(outcomes: list[Outcome]) -> str:
    """Medians over seeds, and which good settings were lost."""

    def median(of: Callable[[Outcome], float]) -> str:
        return f"{statistics.median(map(of, outcomes)):.2%}"

    grids = [point for outcome in outcomes for point in outcome.grid]
    good = [
        point
        for outcome in outcomes
        for point in outcome.grid
        if point.val_ppl <= NEAR * min(each.val_ppl for each in outcome.grid)
    ]
    kept = sum(point.passes for point in good)
    return "\n".join(
        [
            f"median regret {median(lambda one: one.regret)} of the grid, "
            f"{median(lambda one: one.regret_of_passing)} of its points that pass the checks",
            f"median compute {median(lambda one: one.compute)} of the unpruned one, "
            f"{median(lambda one: one.compute_measured)} by the clock",
            f"of {len(grids)} points {len(good)} are within 1% of their grid's best; the checks "
            f"would let {kept} of those pass (lowest effective rank "
            f"{min(point.effective_rank_ratio for point in good):.1%})",
            f"largest difference of a training and its repetition: "
            f"{max(one.mismatch for one in outcomes):.1e}",
        ]
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
    main()
