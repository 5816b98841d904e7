"""What a run was made with: program, libraries, hardware."""

import importlib.metadata
import json
import platform
import subprocess
from datetime import datetime
from pathlib import Path

import torch

from datamodules.whole_files import write_bytes_whole
from tuning.settings import code_version
from tuning.workers import num_cores

_LIBRARIES = (
    "torch", "lightning", "torchmetrics", "numpy", "tokenizers", "datasets", "safetensors",
)  # fmt: skip
_ROOT = Path(__file__).parents[1]


def record_versions(path: Path) -> None:
    """Adds a record of this start to a run's versions.json, a list with one for every start."""
    records = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    text = json.dumps([*records, versions()], indent=2) + "\n"
    write_bytes_whole(path, text.encode())


def versions() -> dict[str, object]:
    """Versions of program and libraries, and the hardware of this machine."""
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        "cuda": torch.version.cuda,
        "git_commit": _git("rev-parse", "HEAD"),
        "git_changes": (_git("status", "--porcelain", "--untracked-files=no") or "").splitlines(),
        "code": code_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": num_cores(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def _git(*arguments: str) -> str | None:
    """What git says of the program's folder; None where there is no git or no repository."""
    try:
        ran = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return ran.stdout.strip()


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
