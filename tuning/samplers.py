"""Samplers and pruners by name, all of them Optuna's own."""

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    GridSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from config import InputError
from tuning.retries import retried_number
from tuning.search_space import SearchSpace

SamplerName = Literal["tpe", "gp", "cmaes", "random", "grid"]
PrunerName = Literal["median", "hyperband", "successive-halving", "none"]

NUM_STARTUP_TRIALS = 5
"""Complete trials before which the median prunes none."""


class SeededSampler(BaseSampler):
    """Makes Optuna's sampler anew for every trial, seeded by the trial's place in the study.

    What is drawn depends on the study's seed and on the trials before alone. So a study that is
    continued proposes what an uninterrupted one does, and repeats no start-up points; and workers,
    whose trials have different numbers, draw differently.

    Args:
        make: builds the sampler from a seed.
        seed: of the study.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self.make = make
        self.seed = seed
        self.sampler = make(seed)

    def reseed_rng(self) -> None:
        """Does nothing: the trial's place seeds it."""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        place = _place_of(study, trial)
        state = np.random.SeedSequence([self.seed, place]).generate_state(1)
        self.sampler = self.make(int(state[0]))
        self.sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self.sampler.after_trial(study, trial, state, values)


def make_sampler(name: SamplerName, seed: int, space: SearchSpace, num_trials: int) -> BaseSampler:
    """A sampler that repeats its draws.

    Args:
        name: of Optuna's class.
        seed: of the study.
        space: what is tuned.
        num_trials: points of a grid, at most.

    Raises:
        InputError: CMA-ES has one parameter alone, or a package that the sampler needs is missing.
    """
    if name == "grid":
        return GridSampler(space.grid(num_trials), seed=seed)
    if name == "cmaes" and len(space.ranges) < 2:
        raise InputError("--sampler cmaes needs two parameters or more; add to --tune.")
    makers: dict[str, Callable[[int], BaseSampler]] = {
        "tpe": lambda seed: TPESampler(seed=seed),
        "gp": lambda seed: GPSampler(seed=seed),
        "cmaes": lambda seed: CmaEsSampler(seed=seed, warn_independent_sampling=False),
        "random": lambda seed: RandomSampler(seed=seed),
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return SeededSampler(makers[name], seed)
    except ImportError as error:
        raise InputError(f"--sampler {name}: {error}") from error


def grid_size(space: SearchSpace, num_trials: int) -> int:
    """Points of the grid that `make_sampler` makes."""
    return int(np.prod([len(values) for values in space.grid(num_trials).values()]))


def make_pruner(name: PrunerName, num_epochs: int) -> BasePruner:
    """A pruner of Phase 2, which reports after each of its `num_epochs` epochs."""
    if name == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=num_epochs)
    if name == "successive-halving":
        return SuccessiveHalvingPruner(min_resource=1)
    if name == "none":
        return NopPruner()
    return MedianPruner(n_startup_trials=NUM_STARTUP_TRIALS)


def num_startup_trials(name: PrunerName) -> float:
    """Complete trials before which a pruner prunes none; infinity where it never does."""
    return {"median": NUM_STARTUP_TRIALS, "none": math.inf}.get(name, 0)


def _place_of(study: Study, trial: FrozenTrial) -> int:
    """Trials that were proposed before this one; a repeated one has the place of its original."""
    # Not `study.get_trials`, of which Hyperband shows a part.
    trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
    number = retried_number(trial)
    number = trial.number if number is None else number
    return sum(other.number < number and retried_number(other) is None for other in trials)
