"""Command line of full-length training: both phases, checkpoints, and a test perplexity."""

import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

import command_line
from config import Config, InputError, PresetName


@dataclass(frozen=True)
class TrainOptions:
    """The run."""

    test: bool = False
    """Send one batch through both phases, print what was checked, and end with 0 or 1."""
    run_dir: Path | None = None
    """New folder for checkpoints and logs; `runs/train_DATE_TIME` where it is not given."""
    resume: Path | None = None
    """Folder of a run to go on with, under the configuration that it was started with."""
    config: str | None = None
    """Module with an OptimizedConfig to start from, such as config_optimized."""
    preset: PresetName = "default"
    """Sizes to start from where no module is given."""


def parse(arguments: list[str]) -> tuple[TrainOptions, Config]:
    """Reads the command line; prints help or a usage error and exits as `tyro` does.

    Raises:
        InputError: a file that the arguments name cannot be used.
    """
    default = _default_config(arguments)

    def options(
        run: Annotated[TrainOptions, tyro.conf.arg(name="")],
        settings: Annotated[Config, tyro.conf.arg(name="")] = default,
    ) -> tuple[TrainOptions, Config]:
        return run, settings

    run, settings = tyro.cli(options, args=arguments, prog="train.py", description=__doc__)
    if run.resume is not None and settings != default:
        raise InputError(
            "--resume goes on under the run's own configuration: give no other option."
        )
    return run, settings


def main() -> int:
    """Trains, or tests one batch; returns the exit code."""
    options, config = parse(sys.argv[1:])
    return _self_test(config) if options.test else _train(options, config)


def _default_config(arguments: list[str]) -> Config:
    resume = command_line.peek(arguments, "--resume")
    module = command_line.peek(arguments, "--config")
    preset = command_line.peek(arguments, "--preset")
    given = [o for o, v in (("--resume", resume), ("--config", module), ("--preset", preset)) if v]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} exclude each other; give one of them.")
    if resume is not None:
        from tuning.full_length import stored_config

        return stored_config(Path(resume))
    if module is not None:
        from tuning.export import load_config

        return load_config(module)
    return command_line.preset_default(arguments)


def _self_test(config: Config) -> int:
    from tuning.self_test import run_checks

    all_hold = True
    for check in run_checks(config):
        print(f"{'ok' if check.holds else 'FAILED':6} {check.name}: {check.figure}", flush=True)
        all_hold = all_hold and check.holds
    return 0 if all_hold else command_line.EXIT_FAILED


def _train(options: TrainOptions, config: Config) -> int:
    from datamodules.token_datamodule import TokenDataModule
    from tuning.full_length import FullRun, start_run
    from tuning.training import check_accelerator

    check_accelerator(config)
    datamodule = TokenDataModule(config)
    datamodule.setup()
    run_dir = (
        options.resume or options.run_dir or Path("runs", f"train_{datetime.now():%Y%m%d_%H%M%S}")
    )
    if options.resume is None:
        start_run(run_dir, config)
    print(f"Run {run_dir}: {datamodule.describe()}", flush=True)
    run = FullRun(config, datamodule, run_dir, Console())
    try:
        module = run.train()
    except KeyboardInterrupt:
        print(f"Interrupted; go on with: python train.py --resume {run_dir}", flush=True)
        raise
    except FloatingPointError as error:
        print(f"error: {error}; try a lower learning rate. Logs are in {run_dir}.", file=sys.stderr)
        return command_line.EXIT_FAILED
    perplexity = run.test(module)
    text = "no test sequence in this corpus" if perplexity is None else f"{perplexity:.2f}"
    print(f"Test perplexity: {text}")
    print(f"Best checkpoint: {run_dir / 'phase2' / 'best.ckpt'}")
    print(f"  tensorboard --logdir {run_dir}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
