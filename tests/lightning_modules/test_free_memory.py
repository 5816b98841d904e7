"""Free memory within the limits of control groups, as both of their versions tell them."""

from pathlib import Path

import pytest

from lightning_modules.free_memory import free_memory

GIB = 2**30


def proc(folder: Path, membership: str, available_gib: float = 1000) -> Path:
    (folder / "proc" / "self").mkdir(parents=True)
    (folder / "proc" / "meminfo").write_text(
        f"MemTotal: 99 kB\nMemAvailable: {int(available_gib * GIB / 1024)} kB\n"
    )
    (folder / "proc" / "self" / "cgroup").write_text(membership)
    return folder / "proc"


def group(folder: Path, limit: str, usage: float, inactive: float, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else (
        "memory.limit_in_bytes", "memory.usage_in_bytes")  # fmt: skip
    (folder / names[0]).write_text(limit + "\n")
    (folder / names[1]).write_text(f"{int(usage * GIB)}\n")
    name = "inactive_file" if version == 2 else "total_inactive_file"
    (folder / "memory.stat").write_text(f"anon 5\n{name} {int(inactive * GIB)}\n")


def test_of_this_machine_it_is_something() -> None:
    assert 0 < free_memory() < 2**60


def test_what_is_available_limits_it(tmp_path: Path) -> None:
    assert free_memory(proc(tmp_path, "", 0.25), tmp_path) == GIB // 4


@pytest.mark.parametrize(
    ("job", "step", "expected"),
    [(2.0, "max", 1.5), (2.0, "1.25", 0.75), (1.0, "1.25", 0.5), (0.25, "max", 0.0)],
)
def test_the_tightest_group_counts(tmp_path: Path, job: float, step: str, expected: float) -> None:
    """A job's step, its job above it, and a mount whose root has no limit; files' pages come back."""
    groups = tmp_path / "groups"
    groups.mkdir()
    group(groups / "job", str(int(job * GIB)), usage=1.0, inactive=0.5)
    limit = step if step == "max" else str(int(float(step) * GIB))
    group(groups / "job" / "step", limit, usage=0.75, inactive=0.25)
    assert free_memory(proc(tmp_path, "0::/job/step\n"), groups) == expected * GIB


def test_version_1_has_memory_in_a_folder_of_its_own(tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    group(groups / "memory" / "job", str(GIB), usage=0.5, inactive=0.125, version=1)
    membership = "4:cpu,cpuacct:/other\n7:memory:/job/gone\n1:name=systemd:/\n"
    assert free_memory(proc(tmp_path, membership), groups) == 0.625 * GIB


def test_without_any_of_it_memory_is_the_machines(tmp_path: Path) -> None:
    assert free_memory(tmp_path / "none", tmp_path / "nothing") > 0
