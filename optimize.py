"""Command line of the study: finds the best parameters and writes them to a file.

`optimize.py clean --storage URL` ends trials whose process is gone.
"""

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import tyro
from rich.console import Console

import command_line
from config import Config, InputError, PresetName, require

if TYPE_CHECKING:
    import optuna

    from datamodules.token_datamodule import TokenDataModule
    from tuning.display import StudyDisplay
    from tuning.study import StudyPlan

_HERE = Path(__file__).parent
_DEFAULT_NAME = "dist_reg_weight_optimization"
_STORAGE_VARIABLE = "OPTUNA_STORAGE"


@dataclass(frozen=True)
class StudyOptions:
    """The study."""

    n_trials: int = 20
    """Finished trials (complete and pruned) in all, those of earlier calls and of other workers
    counted in."""
    timeout: float | None = None
    """Seconds after which this call ends; the running trial is cut off and queued again."""
    trial_timeout: float | None = None
    """Seconds after which a trial ends as failed."""
    study_name: str = _DEFAULT_NAME
    """Name in the storage and folder below runs-dir."""
    storage: str | None = None
    """Database URL to keep the study in, to continue it from and to share it by, such as
    sqlite:///study.db, postgresql+psycopg://user:password@host/name or grpc://host:port; taken
    from the environment's OPTUNA_STORAGE where it is not given, else in memory."""
    workers: str = "1"
    """Processes that share the study on this machine, each with its part of the cores or a GPU of
    its own; `auto` takes one for every GPU, or for every core."""
    tune: str = "dist_reg_weight"
    """What is tuned, separated by commas: dist_reg_weight, contraction_weight, neighbour_share,
    phase1_learning_rate, ema_momentum, phase1_convergence_threshold."""
    range: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Another range for what is tuned, as phase1_learning_rate=1e-4:1e-2:log (or :linear); once for
    each parameter."""
    sampler: Literal["tpe", "gp", "cmaes", "random", "grid"] = "tpe"
    """What proposes the parameters: Optuna's sampler of that name."""
    pruner: Literal["median", "hyperband", "successive-halving", "none"] = "median"
    """What stops Phase 2 early: Optuna's pruner of that name."""
    confirm: int | None = None
    """Best settings to train again under three fresh seeds, of which the lowest mean wins; None
    takes 3 where at least 10 trials are complete."""
    allow_changed_settings: bool = False
    """Continue a study that was made with other settings, and mark the trials."""
    runs_dir: Path = Path("runs")
    """Folder of the TensorBoard logs."""
    output: Path = _HERE / "config_optimized.py"
    """Python file to write the best configuration to."""
    preset: PresetName = "default"
    """Values to start from: `full` has what is best on half a million tokens or more, `published` is
    the published run, `smoke` takes seconds."""

    def __post_init__(self) -> None:
        require(self.n_trials >= 1, "n_trials", self.n_trials, "1 or more")
        for name in ("timeout", "trial_timeout"):
            value = getattr(self, name)
            require(value is None or value > 0, name, value, "a positive number")
        require(self.confirm is None or self.confirm >= 0, "confirm", self.confirm, "0 or more")
        name = self.study_name
        require(
            bool(name.strip(". ")) and "/" not in name and "\\" not in name,
            "study_name",
            name,
            "a name that can be a folder's",
        )


@dataclass(frozen=True)
class CleanOptions:
    """Shows the running trials of a study, ends those whose process is gone and queues them again."""

    storage: str | None = None
    """Database URL of the study; taken from the environment's OPTUNA_STORAGE where not given."""
    study_name: str = _DEFAULT_NAME
    """Name in the storage."""
    all: bool = False
    """Take every running trial for a ghost: no worker is alive."""


def parse(arguments: list[str]) -> tuple[StudyOptions, Config]:
    """Reads the command line; prints help or a usage error and exits as `tyro` does."""

    default = command_line.preset_default(arguments)

    def options(
        study: Annotated[StudyOptions, tyro.conf.arg(name="")],
        config: Annotated[Config, tyro.conf.arg(name="")] = default,
    ) -> tuple[StudyOptions, Config]:
        return study, config

    return tyro.cli(
        options,
        args=arguments,
        prog="optimize.py",
        description=__doc__,
    )


def main() -> int:
    """Runs the study, or cleans one; returns the exit code."""
    start = time.monotonic()
    arguments = sys.argv[1:]
    if arguments[:1] == ["clean"]:
        return _clean(tyro.cli(CleanOptions, args=arguments[1:], prog="optimize.py clean"))
    return _run(arguments, start)


class _Study(NamedTuple):
    """All that a worker needs."""

    config: Config
    datamodule: "TokenDataModule"
    plan: "StudyPlan"
    study: "optuna.Study"
    changed: str


def work(arguments: list[str], url: str, start: float, display: "StudyDisplay") -> int:
    """One of several workers of a study that exists: a process that ends as the command does."""

    def search() -> int:
        options, config = parse(arguments)
        return _search(_open(options, config, url, start), options.confirm, display)

    command_line.run(search)


def _run(arguments: list[str], start: float) -> int:
    options, config = parse(arguments)
    # Torch, Lightning and Optuna take seconds to import: not before the arguments are known good.
    from tuning import export
    from tuning.display import StudyDisplay
    from tuning.storage import without_password
    from tuning.training import check_accelerator
    from tuning.workers import count_workers

    display = StudyDisplay(Console())
    export.check_writable(options.output)
    check_accelerator(config)
    num_workers = count_workers(options.workers, config.accelerator)
    url = options.storage or os.environ.get(_STORAGE_VARIABLE)
    with tempfile.TemporaryDirectory() as folder:
        if url is None and num_workers > 1:
            url = f"sqlite:///{folder}/study.db"
        opened = _open(options, config, url, start, num_workers)
        display.line(f"Study {options.study_name}: {opened.datamodule.describe()}")
        if options.storage is None and os.environ.get(_STORAGE_VARIABLE):
            display.line(f"Storage, from {_STORAGE_VARIABLE}: {without_password(url or '')}")
        try:
            return _run_opened(opened, options, arguments, url, start, num_workers, display)
        finally:
            opened.study._storage.remove_session()


def _run_opened(
    opened: _Study,
    options: StudyOptions,
    arguments: list[str],
    url: str | None,
    start: float,
    num_workers: int,
    display: "StudyDisplay",
) -> int:
    from tuning import confirm, export, report
    from tuning.study import log_dir_of

    study, changed, log_dir = opened.study, opened.changed, log_dir_of(opened.study)
    display.line(f"TensorBoard logs: {log_dir}")
    try:
        if num_workers == 1:
            exit_code = _search(opened, options.confirm, display)
        else:
            assert url is not None
            exit_code = _share(opened, arguments, url, start, num_workers, display)
    except KeyboardInterrupt as interrupt:
        exit_code = command_line.exit_code_of(interrupt)

    asked = confirm.num_settings(options.confirm, study, changed)
    confirmed = confirm.gather_confirmed(study._storage, study, asked, changed)
    result = report.gather(study, confirmed, changed)
    report.show(result, time.monotonic() - start, log_dir, display)
    if not result.has_winner:
        display.line(report.explain_nothing_complete(result))
        return exit_code or command_line.EXIT_FAILED
    provenance = report.provenance(result, study.study_name)
    export.write_config(options.output, opened.config, result.winner, provenance)
    display.line(f"Best configuration written to {options.output}")
    return exit_code


def _open(
    options: StudyOptions, config: Config, url: str | None, start: float, num_workers: int = 1
) -> _Study:
    import optuna

    from datamodules.token_datamodule import TokenDataModule
    from tuning.search_space import parse_search_space
    from tuning.storage import open_storage
    from tuning.study import StudyPlan, changed_settings, check_reachable_rank, open_study
    from tuning.time_limit import TimeoutReached, time_limit
    from tuning.trial_loop import Limits

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    deadline = None if options.timeout is None else start + options.timeout
    plan = StudyPlan(
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
    plan.check()
    storage = open_storage(url)
    datamodule = TokenDataModule(config)
    try:
        with time_limit(deadline, TimeoutReached()):
            datamodule.setup()
    except TimeoutReached:
        raise InputError(
            f"--timeout {options.timeout:g} was over before the corpus was read; allow more."
        ) from None
    check_reachable_rank(config, datamodule.num_val_tokens)
    study = open_study(storage, plan, config, datamodule)
    changed = changed_settings(study, config, datamodule, plan.space)
    return _Study(config, datamodule, plan, study, changed)


def _search(opened: _Study, asked: int | None, display: "StudyDisplay") -> int:
    """Runs the study's trials and then its confirmation in this process."""
    from tuning import confirm
    from tuning.study import is_finished, run_study
    from tuning.trial_loop import RepeatedFailureError

    config, datamodule, plan, study, changed = opened
    try:
        run_study(study, config, datamodule, plan, display)
        num_settings = confirm.num_settings(asked, study, changed)
        if num_settings > 0 and is_finished(study, plan):
            confirmation = confirm.open_confirmation(
                study._storage, study, config, num_settings, changed
            )
            confirm.run_confirmation(confirmation, study, config, datamodule, plan, display)
    except RepeatedFailureError as failure:
        display.line(f"error: {failure}; the study ends here.")
        return command_line.EXIT_FAILED
    return 0


def _share(
    opened: _Study,
    arguments: list[str],
    url: str,
    start: float,
    num_workers: int,
    display: "StudyDisplay",
) -> int:
    """Has workers of their own run the study."""
    from tuning import confirm, workers
    from tuning.study import describe_status, is_finished
    from tuning.trial_loop import end_trials_of, name_of

    def lost(pid: int, _: int) -> None:
        for number in end_trials_of(opened.study, name_of(pid)):
            display.line(f"  trial {number} ended with it and is queued again")

    accelerator = opened.config.accelerator

    def status() -> str:
        study, plan, changed = opened.study, opened.plan, opened.changed
        if is_finished(study, plan):
            confirming = confirm.describe_status(study, num_workers, changed)
            if confirming:
                return confirming
        return describe_status(study, plan, changed)

    environments = [
        workers.environment_of(index, num_workers, accelerator) for index in range(num_workers)
    ]
    threads = environments[0]["OMP_NUM_THREADS"]
    display.line(
        f"{num_workers} workers, {threads} {'thread' if threads == '1' else 'threads'} each"
    )
    return workers.run_workers(
        work,
        arguments,
        url,
        start,
        environments,
        display,
        on_lost=lost,
        status=status,
    )


def _clean(options: CleanOptions) -> int:
    from callbacks.figures import format_duration
    from tuning import clean

    url = options.storage or os.environ.get(_STORAGE_VARIABLE)
    if url is None:
        raise InputError("--storage is missing; it must be the database URL of the study.")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = clean.load_study(url, options.study_name)
    ended, left = clean.end_ghosts(study, every=options.all)
    for one, fate in [(one, "ended") for one in ended] + [(one, "left running") for one in left]:
        print(
            f"Trial {one.trial.number}, {one.worker or 'no worker'}, running for "
            f"{format_duration(one.seconds)}: {fate}{f', {one.ghost}' if one.ghost else ''}"
        )
    print(f"{len(ended)} ended, {len(left)} left running.")
    return 0


if __name__ == "__main__":
    command_line.run(main)
