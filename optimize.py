"""Command line of the study: finds the best parameters and writes them to a file.

`optimize.py clean --storage URL` ends trials whose process is gone.
"""

import functools
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NoReturn

import tyro
from rich.console import Console

import command_line
from config import Config, InputError
from tuning.study_options import DEFAULT_NAME, StudyOptions

if TYPE_CHECKING:
    from tuning.display import StudyDisplay
    from tuning.session import Session

_STORAGE_VARIABLE = "OPTUNA_STORAGE"


@dataclass(frozen=True)
class CleanOptions:
    """Shows the running trials of a study, ends those whose process is gone and queues them again."""

    storage: str | None = None
    """Database URL of the study; taken from the environment's OPTUNA_STORAGE where not given."""
    study_name: str = DEFAULT_NAME
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


def work(
    options: StudyOptions, config: Config, url: str, start: float, display: "StudyDisplay"
) -> NoReturn:
    """One of several workers of a study that exists: a process that ends as the command does."""
    from tuning import session
    from tuning.time_limit import TimeoutReached

    def search() -> int:
        try:
            opened = session.open_session(options, config, url, start)
        except TimeoutReached:
            return 0  # before this worker had begun; others, or earlier calls, have results
        return 0 if session.search(opened, display) else command_line.EXIT_FAILED

    command_line.run(search)


def _run(arguments: list[str], start: float) -> int:
    options, config = parse(arguments)
    # Torch, Lightning and Optuna take seconds to import: not before the arguments are known good.
    from tuning import export
    from tuning.display import StudyDisplay
    from tuning.storage import require_shared, without_password
    from tuning.training import check_accelerator
    from tuning.workers import count_workers

    display = StudyDisplay(Console())
    export.check_writable(options.output)
    check_accelerator(config.accelerator)
    num_workers = count_workers(options.workers, config.accelerator)
    url = options.storage or os.environ.get(_STORAGE_VARIABLE)
    with tempfile.TemporaryDirectory() as folder:
        if url is None and num_workers > 1:
            url = f"sqlite:///{folder}/study.db"
        if url is not None and num_workers > 1:
            require_shared(url)
        opened = _open(options, config, url, start, num_workers)
        display.line(f"Study {options.study_name}: {opened.datamodule.describe()}")
        if options.storage is None and os.environ.get(_STORAGE_VARIABLE):
            display.line(f"Storage, from {_STORAGE_VARIABLE}: {without_password(url or '')}")
        try:
            return _run_opened(opened, options, url, start, display)
        finally:
            opened.study._storage.remove_session()


def _open(
    options: StudyOptions, config: Config, url: str | None, start: float, num_workers: int = 1
) -> "Session":
    from tuning.session import open_session
    from tuning.time_limit import TimeoutReached

    try:
        return open_session(options, config, url, start, num_workers)
    except TimeoutReached:
        raise InputError(
            f"--timeout {options.timeout:g} was over before the corpus was read; allow more."
        ) from None


def _run_opened(
    opened: "Session",
    options: StudyOptions,
    url: str | None,
    start: float,
    display: "StudyDisplay",
) -> int:
    from tuning import export, report, session
    from tuning.study import log_dir_of

    log_dir = log_dir_of(opened.study)
    display.line(f"TensorBoard logs: {log_dir}")
    if options.runs_dir not in (StudyOptions.runs_dir, log_dir.parent):
        display.line(
            f"The study has its logs there already: --runs-dir {options.runs_dir} is ignored."
        )
    ended = ""
    try:
        if opened.plan.num_workers == 1:
            exit_code = 0 if session.search(opened, display) else command_line.EXIT_FAILED
        else:
            assert url is not None
            worker = functools.partial(work, options, opened.config, url, start)
            exit_code = session.share(opened, worker, display)
            ended = "its workers ended" if exit_code else ""
    except KeyboardInterrupt as interrupt:
        exit_code, ended = command_line.exit_code_of(interrupt), "a signal ended the study"

    result = opened.gather()
    report.show(result, time.monotonic() - start, log_dir, display)
    if not result.has_winner:
        display.line(report.explain_nothing_complete(result, ended))
        return exit_code or command_line.EXIT_FAILED
    provenance = report.provenance(result, opened.study.study_name)
    export.write_config(options.output, opened.config, result.winner, provenance)
    display.line(f"Best configuration written to {options.output}")
    return exit_code


def _clean(options: CleanOptions) -> int:
    from callbacks.figures import format_duration
    from tuning import clean

    url = options.storage or os.environ.get(_STORAGE_VARIABLE)
    if url is None:
        raise InputError("--storage is missing; it must be the database URL of the study.")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    num_ended = num_left = 0
    for study in clean.load_studies(url, options.study_name):
        ended, left = clean.end_ghosts(study, every=options.all)
        num_ended, num_left = num_ended + len(ended), num_left + len(left)
        name = "Trial" if study.study_name == options.study_name else "Confirmation"
        for one, fate in [
            *((one, "ended") for one in ended),
            *((one, "left running") for one in left),
        ]:
            print(
                f"{name} {one.trial.number}, {one.worker or 'no worker'}, running for "
                f"{format_duration(one.seconds)}: {fate}{f', {one.ghost}' if one.ghost else ''}"
            )
    print(f"{num_ended} ended, {num_left} left running.")
    return 0


if __name__ == "__main__":
    command_line.run(main)
