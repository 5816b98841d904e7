"""Believed winners: the best settings of a study, trained again under fresh seeds."""

import copy
import dataclasses
import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from callbacks.figures import format_duration
from config import Config
from datamodules.token_datamodule import TokenDataModule
from tuning.display import StudyDisplay, trial_seconds
from tuning.objective import Objective
from tuning.quota import Queue, num_queued
from tuning.storage import CONFIRMATION
from tuning.study import StudyPlan, complete_trials, log_dir_of
from tuning.trial_loop import run_trials, running_seconds

NUM_SEEDS = 3
_DEFAULT_SETTINGS = 3
_MIN_COMPLETE = 10
"""Complete trials from which on a study is confirmed unasked."""
_TRIAL, _SEED = "trial", "random_seed"
_CONFIRMING = "confirming"
_SEED_STREAM = 1
_CREATION_SECONDS = 10.0


class Confirmed(NamedTuple):
    """A setting under fresh seeds.

    trial: number of the study's trial that found it. params: tuned values by name. values:
    `val_ppl` under each seed.
    """

    trial: int
    params: dict[str, Any]
    values: list[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds."""
        return statistics.stdev(self.values)


def num_settings(asked: int | None, study: optuna.Study, changed: str = "") -> int:
    """How many settings to confirm: as asked, else three where ten trials are complete.

    Args:
        asked: None leaves it to the study.
        study: to be confirmed.
        changed: see `complete_trials`.
    """
    num_complete = len(complete_trials(study, changed))
    if asked is None:
        asked = _DEFAULT_SETTINGS if num_complete >= _MIN_COMPLETE else 0
    return min(asked, num_complete)


def open_confirmation(
    study: optuna.Study, config: Config, num_settings: int, changed: str = ""
) -> optuna.Study:
    """The study's confirmation, itself a study of the same storage, with its trials queued.

    Whoever comes first queues them; a study that has found better settings since gets those added.
    What is confirmed under changed settings is a study of its own.
    """
    confirmation = optuna.create_study(
        storage=study._storage,
        study_name=_name_of(study, changed),
        direction="minimize",
        sampler=RandomSampler(seed=config.random_seed),
        pruner=NopPruner(),
        load_if_exists=True,
    )
    best = best_settings(study, num_settings, changed)
    wanted = [trial.number for trial in best]
    claimed = confirmation.user_attrs.get(_CONFIRMING)
    confirmation.set_user_attr(_CONFIRMING, wanted)
    if claimed == wanted and _is_queued(confirmation, wanted):
        return confirmation
    for trial in best:
        for seed in confirmation_seeds(config.random_seed):
            values = {**trial.params, _TRIAL: trial.number, _SEED: seed}
            confirmation.enqueue_trial(values, skip_if_exists=True)
    return confirmation


def load_confirmation(study: optuna.Study, changed: str = "") -> optuna.Study | None:
    """The study's confirmation as it is stored; None where none has begun."""
    name = _name_of(study, changed)
    if name not in optuna.get_all_study_names(study._storage):
        return None
    return optuna.load_study(storage=study._storage, study_name=name)


def confirmation_seeds(seed: int) -> list[int]:
    """Seeds that no trial of a study with this seed has."""
    state = np.random.SeedSequence([seed, _SEED_STREAM]).generate_state(NUM_SEEDS)
    return [int(value) for value in state]


def best_settings(study: optuna.Study, num_settings: int, changed: str = "") -> list[FrozenTrial]:
    """The first of `complete_trials` that have different parameters."""
    distinct: list[FrozenTrial] = []
    for trial in complete_trials(study, changed):
        if all(trial.params != other.params for other in distinct):
            distinct.append(trial)
    return distinct[:num_settings]


def run_confirmation(
    confirmation: optuna.Study,
    study: optuna.Study,
    config: Config,
    datamodule: TokenDataModule,
    plan: StudyPlan,
    display: StudyDisplay,
) -> None:
    """Trains what is queued, beside other workers, until all is done or the time is over.

    Raises:
        RepeatedFailureError: three trials in a row failed.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    objective = ConfirmationObjective(config, datamodule, log_dir_of(study), display, plan.space)
    objective.run_prefix = confirmation.study_name.removeprefix(f"{study.study_name}_")

    def rest() -> str:
        return describe_rest(confirmation, study, plan.num_workers)

    display.line(f"Best settings under {NUM_SEEDS} fresh seeds each: {rest()}")
    run_trials(confirmation, objective, Queue(), plan.limits, _Follower(display, rest))


def describe_rest(confirmation: optuna.Study, study: optuna.Study, num_workers: int) -> str:
    """`9 trainings left, about 3 min 05 s`, by the median of the study's complete trials."""
    trials = confirmation.get_trials(deepcopy=False)
    running = running_seconds(trials)
    num_left = len(running) + sum(trial.state == TrialState.WAITING for trial in trials)
    if num_left == 0:
        return "no trainings left"
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    each = statistics.median(trial_seconds(trial) for trial in complete)
    seconds = num_left * each - sum(min(each, since) for since in running)
    together = min(num_left, max(num_workers, len(running)))
    return (
        f"{num_left} {'training' if num_left == 1 else 'trainings'} left, "
        f"about {format_duration(seconds / together)}"
    )


def describe_status(study: optuna.Study, num_workers: int, changed: str = "") -> str:
    """What is left of a finished study's confirmation; empty where none has begun."""
    confirmation = load_confirmation(study, changed)
    return (
        ""
        if confirmation is None
        else f"fresh seeds: {describe_rest(confirmation, study, num_workers)}"
    )


def gather_confirmed(study: optuna.Study, num_settings: int, changed: str = "") -> list[Confirmed]:
    """The best settings that are complete under every seed, lowest mean first."""
    confirmation = load_confirmation(study, changed)
    if num_settings == 0 or confirmation is None:
        return []
    complete = confirmation.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    confirmed = []
    for trial in best_settings(study, num_settings, changed):
        by_seed = {
            other.params[_SEED]: float(other.value or 0.0)
            for other in complete
            if other.params[_TRIAL] == trial.number
        }
        if len(by_seed) == NUM_SEEDS:
            values = [by_seed[seed] for seed in sorted(by_seed)]
            confirmed.append(Confirmed(trial.number, trial.params, values))
    return sorted(confirmed, key=lambda setting: setting.mean)


def describe_winner(confirmed: Sequence[Confirmed]) -> str:
    """Which setting to believe in, and whether the seeds can tell it from the next."""
    first = confirmed[0]
    figures = f"Trial {first.trial} wins: {first.mean:.2f} ± {first.spread:.2f}"
    if len(confirmed) == 1:
        return f"{figures}."
    second = confirmed[1]
    difference = second.mean - first.mean
    spread = max(first.spread, second.spread)
    if difference <= spread:
        return (
            f"{figures}; trial {second.trial} is {difference:.2f} above, inside the spread of "
            f"{spread:.2f} over seeds: the two cannot be told apart."
        )
    return f"{figures}; trial {second.trial} is {difference:.2f} above, outside the spread of {spread:.2f}."


class ConfirmationObjective(Objective):
    """Trains a setting under a seed of its own, and prunes nothing but what is not finite."""

    def config_of(self, trial: optuna.Trial) -> Config:
        trial.suggest_int(_TRIAL, 0, 2**31)
        seed = trial.suggest_int(_SEED, 0, 2**32 - 1)
        config = dataclasses.replace(
            super().config_of(trial),
            random_seed=seed,
            identity_mapping_threshold=1.0,
            min_token_sensitivity=0.0,
            min_effective_rank=0.0,
        )
        self.datamodule = copy.copy(self.datamodule)
        self.datamodule.config = config  # the same tokens in another order
        return config


class _Follower:
    """Tells of each training."""

    def __init__(self, display: StudyDisplay, rest: Callable[[], str]) -> None:
        self.display = display
        self.rest = rest

    def started(self, study: optuna.Study, trial: optuna.Trial, place: int) -> None:
        trials = study.get_trials(deepcopy=False)
        fixed = trials[trial.number].system_attrs["fixed_params"]
        self.display.line(
            f"Confirmation {trial.number} ({place + 1} of {num_queued(trials)}): trial "
            f"{fixed[_TRIAL]} with seed {fixed[_SEED]}"
        )

    def ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.display.trial_ended("confirmation", trial, self.rest())


def _name_of(study: optuna.Study, changed: str) -> str:
    name = study.study_name + CONFIRMATION
    return f"{name}_{hashlib.sha256(changed.encode()).hexdigest()[:8]}" if changed else name


def _is_queued(confirmation: optuna.Study, wanted: Sequence[int]) -> bool:
    """Whether the worker that came first has queued all; False if it died over it."""
    end = time.monotonic() + _CREATION_SECONDS
    while time.monotonic() < end:
        queued = [
            trial.system_attrs["fixed_params"][_TRIAL]
            for trial in confirmation.get_trials(deepcopy=False)
            if "fixed_params" in trial.system_attrs
        ]
        if all(queued.count(number) >= NUM_SEEDS for number in wanted):
            return True
        time.sleep(0.1)
    return False
