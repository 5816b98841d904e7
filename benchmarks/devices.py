"""The device that a benchmark computes on: its name, its clock, and the peak of its memory."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from config import InputError

MIB, GIB = 2**20, 2**30
CPU = torch.device("cpu")
_CLEAR_REFS, _RESET_PEAK = Path("/proc/self/clear_refs"), "5"
_HAS_PEAK = os.access(_CLEAR_REFS, os.W_OK)
"""Of the CPU's memory: on Linux, if not in every container."""


def open_device(name: str) -> torch.device:
    """Raises `InputError` where torch cannot compute there."""
    right = "`cpu`, or a device that torch sees, such as `cuda`"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    # What torch raises for a name that it does not know, a device that cannot hold a tensor, and one
    # that its build lacks (AssertionError).
    except (RuntimeError, AssertionError) as error:
        message = f"--device is {name!r}, which torch cannot use here; it must be {right}."
        raise InputError(message) from error
    return device


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall time until the device has done the work."""
    start = now(device)
    work()
    return now(device) - start


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done all that it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def start_peak(device: torch.device) -> int:
    """Bytes that are taken now, from which on the peak is looked for.

    Of a GPU, those of its tensors; of the CPU, all that is resident of this process.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    if device.type != "cpu" or not _HAS_PEAK:
        return 0
    _CLEAR_REFS.write_text(_RESET_PEAK)
    return resident("VmRSS")


def peak_since_start(device: torch.device) -> int | None:
    """Bytes that were taken at most since `start_peak`; None where nobody tells."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resident("VmHWM") if device.type == "cpu" and _HAS_PEAK else None


def peak_above(start: int, device: torch.device) -> int:
    """Bytes that were taken at most since `start_peak`, above those that it found.

    Raises:
        InputError: nobody tells.
    """
    peak = peak_since_start(device)
    if peak is None:
        raise InputError(
            f"This system does not tell the peak of memory on {device}; Linux does on a CPU, and CUDA "
            "on its GPUs."
        )
    return peak - start


def resident(field: str) -> int:
    """Bytes of this process's memory of one kind, as Linux counts and calls them (man 5 proc_pid_status).

    Raises:
        OSError: the system is not Linux.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def gib(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / GIB:.3f}"
