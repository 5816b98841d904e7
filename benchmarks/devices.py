"""The device that a benchmark computes on: its name, its clock, and the peak of its memory."""

import time
from collections.abc import Callable

import torch

from config import InputError

GIB = 2**30


def open_device(name: str) -> torch.device:
    """Raises `InputError` where torch cannot compute there."""
    right = "`cpu`, or a device that torch sees, such as `cuda`"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    # What torch raises for a name it does not know, a device that its build lacks (AssertionError),
    # and one that cannot hold a tensor (NotImplementedError).
    except (RuntimeError, AssertionError, NotImplementedError) as error:
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
    """Bytes that are taken now, from which on the peak is looked for."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return int(torch.cuda.memory_allocated(device))


def peak_since_start(device: torch.device) -> int | None:
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None


def gib(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / GIB:.3f}"
