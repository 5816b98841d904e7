"""The peak of a process's memory, from where it is started on."""

import pytest
import torch

import benchmarks.devices
from benchmarks.devices import CPU, MIB, peak_above, peak_since_start, resident, start_peak
from config import InputError


def test_the_peak_begins_anew_wherever_it_is_started() -> None:
    for num_bytes in (200 * MIB, 100 * MIB):
        start = start_peak(CPU)
        assert abs(start - resident("VmRSS")) < 8 * MIB
        filled = torch.ones(num_bytes, dtype=torch.uint8)
        del filled
        # Linux counts pages in parts, some for each core.
        assert num_bytes - MIB < peak_above(start, CPU) < num_bytes + 16 * MIB
        assert resident("VmRSS") < start + 16 * MIB


def test_where_nobody_tells_a_peak_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks.devices, "_HAS_PEAK", False)
    assert start_peak(CPU) == 0
    assert peak_since_start(CPU) is None
    with pytest.raises(InputError, match="does not tell the peak of memory on cpu"):
        peak_above(0, CPU)
