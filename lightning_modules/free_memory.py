"""How much main memory a process may still take."""

import os
from collections.abc import Iterator
from pathlib import Path

_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of main memory that could be had without swapping, control groups' limits kept.

    Args:
        proc: the kernel's view of processes and memory; what is missing in it limits nothing.
        groups: where control groups are mounted, of version 1 or 2.
    """
    free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    meminfo = proc / "meminfo"
    if meminfo.is_file():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        free.append(int(fields["MemAvailable"].split()[0]) * 1024)
    return max(0, min([*free, *_left_by_groups(proc / "self" / "cgroup", groups)]))


def _left_by_groups(membership: Path, groups: Path) -> Iterator[int]:
    """What this process's control group, and each one above it, leaves of its limit."""
    lines = membership.read_text().splitlines() if membership.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = groups, _VERSION_2
        elif "memory" in controllers.split(","):
            root, names = groups / "memory", _VERSION_1
        else:
            continue
        group = root / path.lstrip("/")
        for level in (group, *group.parents):
            yield from _left_by_group(level, *names)
            if level == root:
                break


def _left_by_group(group: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    """Pages of files that were not read for a while are given back when memory is wanted."""
    if not (group / limit).is_file():
        return
    text = (group / limit).read_text().strip()
    if text == "max":
        return
    lines = (group / "memory.stat").read_text().splitlines()
    statistics = dict(line.split() for line in lines)
    yield int(text) - int((group / usage).read_text()) + int(statistics.get(reclaimable, 0))
