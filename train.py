"""Command line of full-length training: both phases, checkpoints, and a test perplexity."""

import dataclasses
import os
import shlex
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro
from rich.console import Console

import command_line
from config import Config, InputError, PresetName, require
from tuning.run_options import RunOptions, is_first_process, started_from_outside

_STARTED_VARIABLE = "TRAIN_STARTED"


@dataclass(frozen=True)
class TrainOptions:
    """The run."""

    test: bool = False
    """Send one batch through both phases, print what was checked, and end with 0 or 1."""
    run_dir: Path | None = None
    """New folder for checkpoints and logs; `runs/train_DATE_TIME` where it is not given."""
    resume: Path | None = None
    """Folder of a run to go on with, under the configuration that it was started with; of other
    options, those of devices and checkpoints may be given anew."""
    config: str | None = None
    """Module with an OptimizedConfig to start from, such as config_optimized; from the current folder
    or, where it is not there, from that of this program."""
    preset: PresetName = "default"
    """Values to start from where no module is given: `full` has what is best on half a million
    tokens or more."""
    max_epochs: int | None = None
    """Epochs of Phase 2, which trains the next-token distribution, at most: phase2-epochs by another
    name. Phase 1 has phase1-max-epochs."""


class Command(NamedTuple):
    """A command line that was read."""

    train: TrainOptions
    run: RunOptions
    config: Config


def parse(arguments: list[str]) -> Command:
    """Reads the command line; prints help or a usage error and exits as `tyro` does.

    Raises:
        InputError: a file that the arguments name cannot be used, or options contradict each other.
    """
    default = _default_config(arguments)
    default_run = _default_run(arguments)

    def options(
        train: Annotated[TrainOptions, tyro.conf.arg(name="")],
        run: Annotated[RunOptions, tyro.conf.arg(name="")] = default_run,
        config: Annotated[Config, tyro.conf.arg(name="")] = default,
    ) -> Command:
        return Command(train, run, config)

    command = tyro.cli(options, args=arguments, prog="train.py", description=__doc__)
    if command.train.resume is not None:
        _check_resumed(command, default, default_run)
    if command.train.max_epochs is None:
        return command
    require(command.train.max_epochs >= 1, "max_epochs", command.train.max_epochs, "1 or more")
    if command_line.peek(arguments, "--phase2-epochs") is not None:
        raise InputError("--max-epochs and --phase2-epochs mean the same; give one of them.")
    config = dataclasses.replace(command.config, phase2_epochs=command.train.max_epochs)
    return command._replace(config=config)


def main() -> int:
    """Trains, or tests one batch; returns the exit code."""
    command = parse(sys.argv[1:])
    return _self_test(command.config) if command.train.test else _train(command)


def _check_resumed(command: Command, config: Config, run: RunOptions) -> None:
    """A continued run is the same run: what changes its numbers stays as it was."""
    same = command.config == config and command.train.max_epochs is None
    same = same and command.train.run_dir is None
    for name in ("patience", "accumulate_grad_batches"):
        same = same and getattr(command.run, name) == getattr(run, name)
    if not same:
        raise InputError(
            "--resume goes on under the run's own configuration: give no other option, except "
            "--devices, --num-nodes, --strategy, --compile and --checkpoint-minutes."
        )


def _default_run(arguments: list[str]) -> RunOptions:
    resume = command_line.peek(arguments, "--resume")
    if resume is None:
        return RunOptions()
    from tuning.run_folder import stored_options

    return stored_options(Path(resume))


def _default_config(arguments: list[str]) -> Config:
    resume = command_line.peek(arguments, "--resume")
    module = command_line.peek(arguments, "--config")
    preset = command_line.peek(arguments, "--preset")
    given = [o for o, v in (("--resume", resume), ("--config", module), ("--preset", preset)) if v]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} exclude each other; give one of them.")
    if resume is not None:
        from tuning.run_folder import stored_config

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


def _train(command: Command) -> int:
    from datamodules.plain_line import print_line
    from datamodules.token_datamodule import TokenDataModule
    from tuning.folders import require_writable_folder
    from tuning.full_length import FullRun
    from tuning.run_folder import require_new_folder, start_run
    from tuning.training import check_accelerator

    _, options, config = command
    is_first = is_first_process()
    check_accelerator(config.accelerator)
    run_dir = _run_dir(command)
    # Before the corpus is read, which may take long.
    if is_first and command.train.resume is not None:
        require_writable_folder("--resume", run_dir)
    elif is_first and command.train.run_dir is not None:
        require_new_folder(run_dir)
    datamodule = TokenDataModule(config)
    datamodule.setup()
    console = Console(quiet=not is_first)
    run = FullRun(config, datamodule, run_dir, console, options)
    if command.train.resume is None and is_first:
        start_run(run_dir, config, options)
    print_line(console, f"Run {run_dir}: {datamodule.describe()}")
    try:
        module = run.train()
        perplexity = run.test(module)
    except KeyboardInterrupt:
        folder = shlex.quote(str(run_dir))
        print_line(console, f"Interrupted; go on with: python train.py --resume {folder}")
        raise
    except FloatingPointError as error:
        if is_first:
            text = f"error: {error}; try a lower learning rate. Logs are in {run_dir}."
            print(text, file=sys.stderr)
        return command_line.EXIT_FAILED
    text = "no test sequence in this corpus" if perplexity is None else f"{perplexity:.2f}"
    print_line(console, f"Test perplexity: {text}")
    print_line(console, f"Best checkpoint: {run_dir / 'phase2' / 'best.ckpt'}")
    print_line(console, f"Model: {run.export(module)}")
    print_line(console, f"  tensorboard --logdir {shlex.quote(str(run_dir))}")
    return 0


def _run_dir(command: Command) -> Path:
    """The run's folder, the same in all processes."""
    given = command.train.resume or command.train.run_dir
    if given is not None:
        return given
    if started_from_outside() or command.run.num_nodes > 1:
        raise InputError("--run-dir is missing; processes that start apart need the same one.")
    # Processes that this one starts find it in their environment.
    started = os.environ.setdefault(_STARTED_VARIABLE, f"{datetime.now():%Y%m%d_%H%M%S}")
    return Path("runs", f"train_{started}")


if __name__ == "__main__":
    command_line.run(main)
