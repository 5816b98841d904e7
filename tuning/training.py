"""Runs one phase with Lightning's Trainer."""

import logging
import signal
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException

from config import Accelerator, Config, InputError
from lightning_modules.checkpoint_io import WholeCheckpointIO
from tuning.run_options import RunOptions, processes_of
from tuning.signals import await_put_off, raise_if_lost

NO_LOGGER: list[Logger] = []


def fit_phase(
    module: L.LightningModule,
    datamodule: L.LightningDataModule,
    *,
    config: Config,
    num_epochs: int,
    logger: Logger | list[Logger],
    callbacks: Sequence[L.Callback],
    options: RunOptions = RunOptions(),  # noqa: B008  # frozen
    resume_from: Path | None = None,
) -> L.Trainer:
    """Seeds, fits and returns the Trainer, which has the last metrics.

    Args:
        module: a phase's module.
        datamodule: shared by both phases.
        config: seed, precision, accelerator and clipping.
        num_epochs: at most.
        logger: of the figures.
        callbacks: in the order in which they are called.
        options: devices, and batches of a step.
        resume_from: checkpoint to go on from.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM, which Lightning turns into `SystemExit`, as what they
            were; Optuna would leave the trial running for ever otherwise.
        optuna.TrialPruned: raised by a callback.
    """
    trainer = make_trainer(
        config,
        options,
        max_epochs=num_epochs,
        gradient_clip_val=config.gradient_clip or None,
        accumulate_grad_batches=options.accumulate_grad_batches,
        logger=logger,
        callbacks=list(callbacks),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(c, L.pytorch.callbacks.Checkpoint) for c in callbacks),
    )
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=resume_from, weights_only=True)
    except SIGTERMException:
        # Lightning sees each SIGTERM before our handler does, and stops also for one that this
        # puts off until the study's write has ended.
        await_put_off()
        raise
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt):
            raise exit_.__context__ from None
        raise
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores it from the first Ctrl-C on
        raise_if_lost()
    return trainer


def make_trainer(config: Config, options: RunOptions, **settings: Any) -> L.Trainer:
    """A silent Trainer on a run's devices.

    Args:
        config: accelerator and precision.
        options: devices.
        settings: of the Trainer, which refuses what it does not know.
    """
    quieten()
    processes = processes_of(options, config.accelerator)
    is_shared = processes.world_size > 1 or options.strategy == "ddp"
    return L.Trainer(
        accelerator=config.accelerator,
        devices=processes.devices,
        num_nodes=processes.num_nodes,
        # Buffers are the same on all ranks, and large: they are not sent with every step.
        strategy=DDPStrategy(broadcast_buffers=False) if is_shared else "auto",
        use_distributed_sampler=False,
        precision=config.precision,
        plugins=[WholeCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def check_accelerator(accelerator: Accelerator) -> None:
    """Finds out at the start that there is no GPU where one was asked for.

    Raises:
        InputError: no GPU is seen.
    """
    if accelerator == "gpu" and not torch.accelerator.is_available():
        raise InputError(
            "--accelerator is 'gpu' and this machine shows none; it must be `cpu` or `auto`."
        )


def device_name(accelerator: Accelerator) -> str:
    """What a single process computes on: a GPU by its name, or a CPU by the number of threads.

    Another of the kind, or another number, adds in another order: the same trial then ends at a
    `val_ppl` that differs by some thousandths.
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if accelerator != "cpu" and torch.accelerator.is_available():
        return str(torch.accelerator.current_accelerator())
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' if threads > 1 else ''}"


def quieten() -> None:
    """Drops Lightning's advertisements and the advice that does not hold here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # data in memory are not copied through workers
        ".*Checkpoint directory .* exists and is not empty",  # logs are there, or it is continued
        ".*is smaller than the logging interval.*",
        ".*`srun` command is available on your system but is not used.*",  # a worker is no task
        ".*from a checkpoint that ended before the epoch ended.*",  # callbacks.exact_resume skips
        ".*`broadcast_buffers` is deprecated.*",  # its successor is not in torch 2.11
        ".*when logging on epoch level in distributed setting.*",  # metrics are of all ranks
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message=message)
