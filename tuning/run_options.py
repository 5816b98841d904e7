"""How a run is carried out: machines, processes and checkpoints, none of which the model has."""

import os
from dataclasses import dataclass
from typing import Literal, NamedTuple

from config import InputError, require

Strategy = Literal["auto", "ddp"]

_MAX_MINUTES = 10**6


@dataclass(frozen=True)
class RunOptions:
    """Devices and checkpoints.

    Raises:
        InputError: a field is outside its range.
    """

    devices: int | Literal["auto"] = 1
    """GPUs of each machine, or processes on its CPU; `auto` takes all of its GPUs. Taken from
    torchrun where that started the processes."""
    num_nodes: int = 1
    """Machines that train together."""
    strategy: Strategy = "auto"
    """How devices share a batch: `ddp` gives each an equal part of it and a copy of the model;
    `auto` is `ddp` where there are several."""
    compile: bool = False
    """Compile what a training step computes with torch.compile; it takes half a minute at first."""
    checkpoint_minutes: float | None = None
    """Minutes after which a checkpoint is written amid an epoch, too; after every epoch one is."""
    patience: int | None = None
    """Epochs of Phase 2 without a lower val_ppl after which it ends; None trains all."""
    accumulate_grad_batches: int = 1
    """Batches whose gradients make one optimiser step."""

    def __post_init__(self) -> None:
        for name in ("devices", "num_nodes", "patience", "accumulate_grad_batches"):
            value = getattr(self, name)
            require(value in (None, "auto") or value >= 1, name, value, "1 or more")
        minutes = self.checkpoint_minutes
        holds = minutes is None or 0 < minutes <= _MAX_MINUTES
        right = f"a positive number, {_MAX_MINUTES} at most"
        require(holds, "checkpoint_minutes", minutes, right)


class Processes(NamedTuple):
    """Processes on each machine, and machines."""

    devices: int
    num_nodes: int

    @property
    def world_size(self) -> int:
        return self.devices * self.num_nodes


def processes_of(options: RunOptions, accelerator: str) -> Processes:
    """The processes that train together.

    Raises:
        InputError: there are fewer GPUs than asked for, or torchrun started another number of
            processes.
    """
    started = _started_by_torchrun()
    if started is not None:
        _require_same("--devices", options.devices, RunOptions.devices, started.devices)
        _require_same("--num-nodes", options.num_nodes, RunOptions.num_nodes, started.num_nodes)
        return started
    num_gpus = 0 if accelerator == "cpu" else _num_gpus()
    devices = max(1, num_gpus) if options.devices == "auto" else options.devices
    if num_gpus > 0:
        right = f"{num_gpus} at most, as this machine shows no more GPUs"
        require(devices <= num_gpus, "devices", devices, right)
    return Processes(devices, options.num_nodes)


def is_first_process() -> bool:
    """Whether this process writes files and speaks: of several, one does."""
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    names = ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)


def started_from_outside() -> bool:
    """Whether each process was started on its own (torchrun, srun), not by another of them."""
    is_srun = int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_ID" in os.environ
    return _started_by_torchrun() is not None or is_srun


def check_divides(processes: Processes, batch_size: int, num_rows: int, num_val_rows: int) -> None:
    """Finds out that batches cannot be shared equally.

    Args:
        processes: that train together.
        batch_size: sequences in a batch of all of them.
        num_rows: training sequences.
        num_val_rows: validation sequences.

    Raises:
        InputError: the number of processes divides one of the former two not, or there are fewer
            validation sequences.
    """
    ranks = processes.world_size
    right = f"a multiple of the {ranks} processes, which take equal parts of each batch"
    require(batch_size % ranks == 0, "batch_size", batch_size, right)
    if num_rows % ranks > 0:
        raise InputError(
            f"{num_rows} training sequences cannot be shared equally by {ranks} processes; "
            f"take --num-samples {num_rows - num_rows % ranks}."
        )
    if num_val_rows < ranks:
        raise InputError(
            f"{num_val_rows} validation sequences are fewer than {ranks} processes; "
            f"take --num-val-samples {ranks} or more, or fewer --devices."
        )


def _started_by_torchrun() -> Processes | None:
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    devices = int(os.environ["LOCAL_WORLD_SIZE"])
    return Processes(devices, int(os.environ["WORLD_SIZE"]) // devices)


def _require_same(option: str, given: object, default: object, started: int) -> None:
    if given not in (default, "auto", started):
        raise InputError(f"{option} is {given}, but torchrun started {started}; leave it out.")


def _num_gpus() -> int:
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0
