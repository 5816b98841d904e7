"""Command line of the study: finds the best `dist_reg_weight` and writes it to a file."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

import command_line
from config import Config, PresetName, require

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class StudyOptions:
    """The study."""

    n_trials: int = 20
    """Finished trials (complete and pruned) in all, those of earlier calls counted in."""
    timeout: float | None = None
    """Seconds after which no further trial is started."""
    study_name: str = "dist_reg_weight_optimization"
    """Name in the storage and folder below runs-dir."""
    storage: str | None = None
    """Database URL to keep the study in and continue it from, such as sqlite:///study.db; in
    memory where it is not given."""
    runs_dir: Path = Path("runs")
    """Folder of the TensorBoard logs."""
    output: Path = _HERE / "config_optimized.py"
    """Python file to write the best configuration to."""
    preset: PresetName = "default"
    """Sizes to start from: `published` are the published run's, `smoke` takes seconds."""

    def __post_init__(self) -> None:
        require(self.n_trials >= 1, "n_trials", self.n_trials, "1 or more")
        require(
            self.timeout is None or self.timeout > 0, "timeout", self.timeout, "a positive number"
        )
        name = self.study_name
        require(
            bool(name.strip(". ")) and "/" not in name and "\\" not in name,
            "study_name",
            name,
            "a name that can be a folder's",
        )


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
    """Runs the study; returns the exit code."""
    options, config = parse(sys.argv[1:])
    return _run(options, config, time.monotonic())


def _run(options: StudyOptions, config: Config, start: float) -> int:
    # Torch, Lightning and Optuna take seconds to import: not before the arguments are known good.
    import optuna

    from datamodules.token_datamodule import TokenDataModule
    from tuning import export, report
    from tuning.display import StudyDisplay
    from tuning.storage import open_storage
    from tuning.study import (
        RepeatedFailureError,
        StudyPlan,
        check_reachable_rank,
        log_dir_of,
        open_study,
        run_study,
    )
    from tuning.training import check_accelerator

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    display = StudyDisplay(Console())
    export.check_writable(options.output)
    check_accelerator(config)
    storage = open_storage(options.storage)
    datamodule = TokenDataModule(config)
    datamodule.setup()
    check_reachable_rank(config, datamodule.num_val_tokens)
    plan = StudyPlan(options.study_name, options.n_trials, options.timeout, options.runs_dir)
    study = open_study(storage, plan, config)
    log_dir = log_dir_of(study)
    display.line(f"Study {options.study_name}: {datamodule.describe()}")
    display.line(f"TensorBoard logs: {log_dir}")

    try:
        run_study(study, config, datamodule, plan, display)
        exit_code = 0
    except KeyboardInterrupt as interrupt:
        exit_code = command_line.exit_code_of(interrupt)
    except RepeatedFailureError as failure:
        display.line(f"error: {failure}; the study ends here.")
        exit_code = command_line.EXIT_FAILED

    result = report.gather(study)
    report.show(result, time.monotonic() - start, log_dir, display)
    if not result.best:
        display.line(report.explain_nothing_complete(result))
        return exit_code or command_line.EXIT_FAILED
    export.write_config(
        options.output, config, result.best[0].params, report.provenance(result, study.study_name)
    )
    display.line(f"Best configuration written to {options.output}")
    return exit_code


if __name__ == "__main__":
    command_line.run(main)
