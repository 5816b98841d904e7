"""Makes or continues a study and runs it to its total of finished trials."""

import time
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from config import Config, InputError
from datamodules.token_datamodule import TokenDataModule
from models.diagnostics import reachable_rank
from tuning.display import StudyDisplay
from tuning.objective import Objective
from tuning.quota import FINISHED, Total
from tuning.samplers import (
    PrunerName,
    SamplerName,
    grid_size,
    make_pruner,
    make_sampler,
    num_startup_trials,
)
from tuning.search_space import DEFAULT_SPACE, SearchSpace
from tuning.settings import Settings, difference, settings_of
from tuning.time_left import describe_left
from tuning.trial_loop import NO_LIMITS, Limits, run_trials, running_seconds

CHANGED_SETTINGS = "changed_settings"
"""Attribute of a trial that ran under other settings than the study was made with: the difference."""
_SETTINGS = "settings"
_LOG_DIR = "log_dir"
_CREATION_SECONDS = 10.0


@dataclass(frozen=True)
class StudyPlan:
    """What the command line asks of a study."""

    name: str
    num_trials: int
    runs_dir: Path
    limits: Limits = NO_LIMITS
    space: SearchSpace = DEFAULT_SPACE
    sampler: SamplerName = "tpe"
    pruner: PrunerName = "median"
    allow_changed_settings: bool = False
    num_workers: int = 1

    def check(self) -> None:
        """Raises `InputError` where sampler and search space do not go together."""
        make_sampler(self.sampler, 0, self.space, self.num_trials)


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


def open_study(
    storage: BaseStorage, plan: StudyPlan, config: Config, datamodule: TokenDataModule
) -> optuna.Study:
    """Creates the study, or loads it where the storage has one of that name.

    A new study has the configuration's own values as its first trial, so that it never ends below
    them.

    Raises:
        InputError: the stored study was made with other settings, or has trials that are not of the
            grid that was asked for.
    """
    sampler = make_sampler(plan.sampler, config.random_seed, plan.space, plan.num_trials)
    pruner = make_pruner(plan.pruner, config.phase2_epochs)
    settings = settings_of(config, datamodule, plan.space)
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=plan.name,
            direction="minimize",
            sampler=sampler,
            pruner=pruner,
        )
    except DuplicatedStudyError:
        study = optuna.load_study(
            storage=storage, study_name=plan.name, sampler=sampler, pruner=pruner
        )
        if _is_set_up(study):
            _check_settings(study, settings, plan)
            _check_grid(study, plan)
            return study
    _set_up(study, plan, config, settings)
    return study


def log_dir_of(study: optuna.Study) -> Path:
    """The folder with a TensorBoard run for every trial of the study."""
    return Path(study.user_attrs[_LOG_DIR])


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
        KeyboardInterrupt: Ctrl-C, after the running trial was stored as failed and queued again.
    """
    objective = Objective(config, datamodule, log_dir_of(study), display, plan.space)
    changed = changed_settings(study, config, datamodule, plan.space)
    total = total_of(plan)
    follower = _Follower(plan, total, display, changed)
    run_trials(study, objective, Total(total), plan.limits, follower)


def changed_settings(
    study: optuna.Study, config: Config, datamodule: TokenDataModule, space: SearchSpace
) -> str:
    """How this call's settings differ from those that the study was made with; else empty."""
    return difference(study.user_attrs[_SETTINGS], settings_of(config, datamodule, space))


def total_of(plan: StudyPlan) -> int:
    """Trials to finish: a grid has no more than its points."""
    if plan.sampler != "grid":
        return plan.num_trials
    return min(plan.num_trials, grid_size(plan.space, plan.num_trials))


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Complete and pruned trials."""
    return study.get_trials(deepcopy=False, states=FINISHED)


def is_finished(study: optuna.Study, plan: StudyPlan) -> bool:
    """Whether all trials that were asked for have finished."""
    return len(finished_trials(study)) >= total_of(plan)


def complete_trials(study: optuna.Study, changed: str = "") -> list[FrozenTrial]:
    """Complete trials that ran under this call's settings, lowest `val_ppl` first.

    Those of a study that goes on under other settings measured something else.

    Args:
        study: whose trials.
        changed: how this call's settings differ from the study's, see `changed_settings`.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    own = [trial for trial in complete if trial.user_attrs.get(CHANGED_SETTINGS, "") == changed]
    return sorted(own, key=lambda trial: (trial.value or 0.0, trial.number))


def best_trial(study: optuna.Study, changed: str = "") -> FrozenTrial | None:
    """The first of `complete_trials`; None where there is none."""
    return next(iter(complete_trials(study, changed)), None)


def describe_rest(study: optuna.Study, plan: StudyPlan) -> str:
    """How many trials are left, and how long they will take."""
    deadline = plan.limits.deadline
    trials = study.get_trials(deepcopy=False)
    finished = [trial for trial in trials if trial.state in FINISHED]
    running = running_seconds(trials)
    remaining = None if deadline is None else deadline - time.monotonic()
    return describe_left(
        finished,
        total_of(plan) - len(finished),
        num_workers=max(plan.num_workers, len(running)),
        running_seconds=running,
        seconds_until_timeout=remaining,
        num_startup_trials=num_startup_trials(plan.pruner),
    )


def describe_status(study: optuna.Study, plan: StudyPlan, changed: str = "") -> str:
    """`12 of 30 finished, 4 running, best 233.86 (trial 7); 18 trials left, about 2 min 10 s`."""
    num_running = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    best = best_trial(study, changed)
    best_text = "" if best is None else f", best {best.value:.2f} (trial {best.number})"
    return (
        f"{len(finished_trials(study))} of {total_of(plan)} finished, {num_running} running"
        f"{best_text}; {describe_rest(study, plan)}"
    )


class _Follower:
    """Tells of each trial."""

    def __init__(self, plan: StudyPlan, total: int, display: StudyDisplay, changed: str) -> None:
        self.plan = plan
        self.total = total
        self.display = display
        self.changed = changed

    def started(self, study: optuna.Study, trial: optuna.Trial, place: int) -> None:
        if self.changed:
            trial.set_user_attr(CHANGED_SETTINGS, self.changed)
        # Optuna keeps what was suggested: the objective gets the same values.
        values = self.plan.space.suggest(trial)
        parameters = ", ".join(f"{name} {value:.6g}" for name, value in values.items())
        self.display.trial_started(trial.number, place, self.total, parameters)

    def ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
        left = describe_rest(study, self.plan)
        self.display.trial_ended("trial", trial, left, best_trial(study, self.changed))


def _is_set_up(study: optuna.Study) -> bool:
    """Whether the worker that made the study has finished that; False if it died over it."""
    end = time.monotonic() + _CREATION_SECONDS
    while _LOG_DIR not in study.user_attrs:
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _set_up(study: optuna.Study, plan: StudyPlan, config: Config, settings: Settings) -> None:
    study.set_user_attr(_SETTINGS, settings)
    values = plan.space.default_of(config)
    if values is not None and plan.sampler != "grid":
        study.enqueue_trial(values)
    # Last: it tells the other workers that all is there.
    study.set_user_attr(_LOG_DIR, str(_fresh_log_dir(plan)))


def _check_settings(study: optuna.Study, settings: Settings, plan: StudyPlan) -> None:
    changed = difference(study.user_attrs[_SETTINGS], settings)
    if changed and not plan.allow_changed_settings:
        raise InputError(
            f"The study {plan.name!r} was made with other settings: {changed}. Give those, or "
            "another --study-name, or --allow-changed-settings to go on and mark the trials."
        )


def _check_grid(study: optuna.Study, plan: StudyPlan) -> None:
    """A grid is complete when as many trials have finished as it has points: all must be of it."""
    if plan.sampler != "grid":
        return
    grid = plan.space.grid(plan.num_trials)
    grids = [trial.system_attrs.get("search_space") for trial in finished_trials(study)]
    if any(other != grid for other in grids):
        raise InputError(
            f"The study {plan.name!r} has trials that are not of this grid of {total_of(plan)} "
            "points; give the --n-trials that its grid was made with, or another --study-name."
        )


def _fresh_log_dir(plan: StudyPlan) -> Path:
    """`runs/<study>`, or with a number where something else is there, as an earlier study's logs."""
    folder = plan.runs_dir / plan.name
    number = 2
    while folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        folder = plan.runs_dir / f"{plan.name}_{number}"
        number += 1
    return folder
