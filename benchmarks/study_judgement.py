"""A study judged by a grid and by its own parameters unpruned: regret, and what pruning saves and costs."""

import statistics
from collections.abc import Callable
from typing import NamedTuple

from optuna.trial import FrozenTrial, TrialState

from callbacks.effective_rank_pruning import EffectiveRankPruning
from callbacks.identity_mapping_pruning import IdentityMappingPruning
from callbacks.verdict import PRUNING_REASON
from config import Config

NEAR = 1.01
"""A setting is good if its `val_ppl` is below this many times the lowest of the grid."""
CHECKS = (
    EffectiveRankPruning.LOW_RANK,
    IdentityMappingPruning.IDENTITY_MAPPING,
    IdentityMappingPruning.TOKEN_BLINDNESS,
)


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


def compare(
    config: Config,
    trials: list[FrozenTrial],
    grid: list[Point],
    rerun: dict[float, FrozenTrial],
) -> Outcome:
    """Judges a study by its grid and by its own parameters unpruned.

    Args:
        config: thresholds of the checks, epochs of Phase 2, and the seed.
        trials: of the study, complete and pruned; one is complete at least.
        grid: one point at least.
        rerun: the study's parameters unpruned, by `dist_reg_weight`.
    """

    def unpruned(trial: FrozenTrial) -> FrozenTrial:
        return rerun[trial.params["dist_reg_weight"]]

    complete = complete_trials(trials)
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


def complete_trials(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Those that were not pruned."""
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


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
