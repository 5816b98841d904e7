"""A call's study: opened, searched by this process or by workers, gathered for the report."""

from typing import NamedTuple

import optuna

from config import Config
from datamodules.token_datamodule import TokenDataModule
from tuning import confirm, report, study, workers
from tuning.display import StudyDisplay
from tuning.folders import require_writable_folder
from tuning.search_space import parse_search_space
from tuning.storage import open_storage
from tuning.study import StudyPlan
from tuning.study_options import StudyOptions
from tuning.time_limit import TimeoutReached, time_limit
from tuning.trial_loop import Limits, RepeatedFailureError, end_trials_of, name_of
from tuning.worker_entry import Work


class Session(NamedTuple):
    """A study that is open, and all that its trials need.

    changed: how this call's settings differ from the study's. asked: `--confirm`.
    """

    config: Config
    datamodule: TokenDataModule
    plan: StudyPlan
    study: optuna.Study
    changed: str
    asked: int | None

    @property
    def num_confirmed(self) -> int:
        """Settings to confirm, by the trials so far."""
        return confirm.num_settings(self.asked, self.study, self.changed)

    def describe_status(self) -> str:
        """What is left, of the study or of its confirmation."""
        if study.is_finished(self.study, self.plan):
            confirming = confirm.describe_status(self.study, self.plan.num_workers, self.changed)
            if confirming:
                return confirming
        return study.describe_status(self.study, self.plan, self.changed)

    def gather(self) -> report.StudyReport:
        """What the study has found."""
        confirmed = confirm.gather_confirmed(self.study, self.num_confirmed, self.changed)
        return report.gather(self.study, confirmed, self.changed)


def open_session(
    options: StudyOptions, config: Config, url: str | None, start: float, num_workers: int = 1
) -> Session:
    """Reads the corpus and makes or loads the study.

    Args:
        options: of the study.
        config: of its trials.
        url: of the storage; None keeps the study in memory.
        start: when the call began, on the clock of `time.monotonic`.
        num_workers: of this call.

    Raises:
        InputError: what was asked for does not go together, or not with the stored study.
        TimeoutReached: the call's time was over before the corpus was read.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    plan = _plan_of(options, start, num_workers)
    plan.check()
    storage = open_storage(url)
    datamodule = TokenDataModule(config)
    with time_limit(plan.limits.deadline, TimeoutReached()):
        datamodule.setup()
    study.check_reachable_rank(config, datamodule.num_val_tokens)
    if plan.name not in optuna.get_all_study_names(storage):
        require_writable_folder("--runs-dir", plan.runs_dir)
    opened = study.open_study(storage, plan, config, datamodule)
    require_writable_folder("The study's --runs-dir", study.log_dir_of(opened))
    changed = study.changed_settings(opened, config, datamodule, plan.space)
    return Session(config, datamodule, plan, opened, changed, options.confirm)


def search(session: Session, display: StudyDisplay) -> bool:
    """Runs the study's trials and then its confirmation in this process; False where a bug ended it."""
    config, datamodule, plan, opened, changed, _ = session
    try:
        study.run_study(opened, config, datamodule, plan, display)
        num_settings = session.num_confirmed
        if num_settings > 0 and study.is_finished(opened, plan):
            confirmation = confirm.open_confirmation(opened, config, num_settings, changed)
            confirm.run_confirmation(confirmation, opened, config, datamodule, plan, display)
    except RepeatedFailureError as failure:
        display.line(f"error: {failure}; the study ends here.")
        return False
    return True


def share(session: Session, work: Work, display: StudyDisplay) -> int:
    """Has workers of their own search; returns the exit code that `run_workers` does."""
    num_workers = session.plan.num_workers

    def lost(pid: int, _: int) -> None:
        confirmation = confirm.load_confirmation(session.study, session.changed)
        for name, one in (("trial", session.study), ("confirmation", confirmation)):
            for number in [] if one is None else end_trials_of(one, name_of(pid)):
                display.line(f"  {name} {number} ended with it and is queued again")

    environments = [
        workers.environment_of(index, num_workers, session.config.accelerator)
        for index in range(num_workers)
    ]
    threads = environments[0]["OMP_NUM_THREADS"]
    display.line(
        f"{num_workers} workers, {threads} {'thread' if threads == '1' else 'threads'} each"
    )
    return workers.run_workers(
        work,
        environments,
        display,
        deadline=session.plan.limits.deadline,
        on_lost=lost,
        status=session.describe_status,
    )


def _plan_of(options: StudyOptions, start: float, num_workers: int) -> StudyPlan:
    deadline = None if options.timeout is None else start + options.timeout
    return StudyPlan(
        name=options.study_name,
        num_trials=options.n_trials,
        runs_dir=options.runs_dir,
        limits=Limits(deadline, options.trial_timeout),
        space=parse_search_space(options.tune, options.range),
        sampler=options.sampler,
        pruner=options.pruner,
        allow_changed_settings=options.allow_changed_settings,
        num_workers=num_workers,
    )
