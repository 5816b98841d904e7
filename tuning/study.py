"""Makes or continues a study and runs it to its total of finished trials."""

import dataclasses
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage
from optuna.study import MaxTrialsCallback
from optuna.trial import FrozenTrial, TrialState

from config import Config, InputError
from datamodules.token_datamodule import TokenDataModule
from models.diagnostics import reachable_rank
from tuning.display import StudyDisplay
from tuning.objective import Objective
from tuning.time_left import describe_left

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_MAX_FAILURES_IN_A_ROW = 3
_NUM_STARTUP_TRIALS = 5
_CONFIG_ATTRIBUTE = "config"
_LOG_DIR_ATTRIBUTE = "log_dir"
_MACHINE_FIELDS = ("accelerator", "cache_dir")
"""Fields that may differ from one call to the next without changing what is measured much."""


class StudyPlan(NamedTuple):
    """What the command line asks of a study; `timeout` in seconds."""

    name: str
    num_trials: int
    timeout: float | None
    runs_dir: Path


class RepeatedFailureError(RuntimeError):
    """Several trials in a row ended with an exception that is a bug."""


def check_reachable_rank(config: Config, num_val_tokens: int) -> None:
    """Refuses a study in which no trial could pass the check of effective rank.

    Raises:
        InputError: even Gaussian contexts would stay below `min_effective_rank`.
    """
    reachable = reachable_rank(num_val_tokens, config.context_dim) / config.context_dim
    if reachable < config.min_effective_rank:
        raise InputError(
            f"--min-effective-rank {config.min_effective_rank} cannot be met: {num_val_tokens} "
            f"validation tokens allow {reachable:.1%} of {config.context_dim} dimensions at best; "
            "give a larger --num-val-samples, a smaller --context-dim or a lower minimum."
        )


def open_study(storage: BaseStorage, plan: StudyPlan, config: Config) -> optuna.Study:
    """Creates the study, or loads it where the storage has one of that name.

    Raises:
        InputError: the stored study was made with other settings.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=plan.name,
        direction="minimize",
        sampler=sampler_for(config.random_seed, 0),
        pruner=MedianPruner(n_startup_trials=_NUM_STARTUP_TRIALS),
        load_if_exists=True,
    )
    stored = study.user_attrs.get(_CONFIG_ATTRIBUTE)
    settings = _settings(config)
    if stored is None:
        study.set_user_attr(_CONFIG_ATTRIBUTE, settings)
        study.set_user_attr(_LOG_DIR_ATTRIBUTE, str(_fresh_log_dir(plan)))
    elif stored != settings:
        names = sorted(stored.keys() | settings.keys())
        changed = [
            f"{name} was {stored.get(name)!r} and is {settings.get(name)!r}"
            for name in names
            if stored.get(name) != settings.get(name)
        ]
        raise InputError(
            f"The study {plan.name!r} was made with other settings: {'; '.join(changed)}. Give "
            "those, or another --study-name."
        )
    return study


def log_dir_of(study: optuna.Study) -> Path:
    """The folder with a TensorBoard run for every trial of the study."""
    return Path(study.user_attrs[_LOG_DIR_ATTRIBUTE])


def sampler_for(seed: int, num_trials: int) -> TPESampler:
    """A sampler whose draws depend on the seed and the number of trials that came before.

    A sampler seeded once would, in a study that is continued, propose its start-up points again.
    """
    state = np.random.SeedSequence([seed, num_trials]).generate_state(1)
    return TPESampler(seed=int(state[0]))


def run_study(
    study: optuna.Study,
    config: Config,
    datamodule: TokenDataModule,
    plan: StudyPlan,
    display: StudyDisplay,
) -> None:
    """Runs trials until the study has `num_trials` finished ones, or the time is over.

    Raises:
        RepeatedFailureError: three trials in a row failed; each one's traceback has been shown.
        KeyboardInterrupt: Ctrl-C, after the running trial was stored as failed.
    """
    if len(finished_trials(study)) >= plan.num_trials:
        return
    objective = Objective(config, datamodule, log_dir_of(study), display)
    follow = _Follow(config.random_seed, plan, display)

    def announced(trial: optuna.Trial) -> float:
        follow.before(study, trial)
        return objective(trial)

    study.sampler = sampler_for(config.random_seed, len(study.trials))
    study.optimize(
        announced,
        timeout=plan.timeout,
        callbacks=[MaxTrialsCallback(plan.num_trials, states=FINISHED), follow],
        catch=(Exception,),  # failures are stored, shown and counted by `follow`
        gc_after_trial=True,
    )


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Complete and pruned trials."""
    return study.get_trials(deepcopy=False, states=FINISHED)


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the lowest `val_ppl`; None where there is none."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return min(complete, key=lambda trial: trial.value or 0.0, default=None)


class _Follow:
    """Tells of each trial, seeds the next one, and ends a study that only fails."""

    def __init__(self, seed: int, plan: StudyPlan, display: StudyDisplay) -> None:
        self.seed = seed
        self.plan = plan
        self.display = display
        self.start = time.monotonic()
        self.num_failures_in_a_row = 0

    def before(self, study: optuna.Study, trial: optuna.Trial) -> None:
        from tuning.search_space import suggest

        # Optuna keeps what was suggested: the objective gets the same values.
        parameters = ", ".join(f"{name} {value:.6g}" for name, value in suggest(trial).items())
        num_finished = len(finished_trials(study))
        self.display.trial_started(trial.number, num_finished, self.plan.num_trials, parameters)

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        finished = finished_trials(study)
        remaining = None
        if self.plan.timeout is not None:
            remaining = self.plan.timeout - (time.monotonic() - self.start)
        left = describe_left(finished, self.plan.num_trials - len(finished), remaining)
        self.display.trial_ended(trial, best_trial(study), left)
        study.sampler = sampler_for(self.seed, len(study.trials))
        if trial.state != TrialState.FAIL:
            self.num_failures_in_a_row = 0
            return
        self.display.line(trial.user_attrs.get("traceback", ""))
        self.num_failures_in_a_row += 1
        if self.num_failures_in_a_row >= _MAX_FAILURES_IN_A_ROW:
            raise RepeatedFailureError(f"{_MAX_FAILURES_IN_A_ROW} trials in a row failed")


def _settings(config: Config) -> dict[str, object]:
    settings = dataclasses.asdict(config)
    for name in _MACHINE_FIELDS:
        del settings[name]
    # Through JSON, as the storage will give it back.
    return dict(json.loads(json.dumps(settings)))


def _fresh_log_dir(plan: StudyPlan) -> Path:
    """`runs/<study>`, or with a number where an earlier study left its own there."""
    folder = plan.runs_dir / plan.name
    number = 2
    while folder.exists() and any(folder.iterdir()):
        folder = plan.runs_dir / f"{plan.name}_{number}"
        number += 1
    return folder
