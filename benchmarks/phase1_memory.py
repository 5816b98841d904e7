"""Peak memory of Phase 1, and of how much of it the parts that cannot be missed account for.

    python benchmarks/phase1_memory.py [--cases published-640 ...] [--precision bf16-mixed]

The sizes are those of `phase1.py`. Each line is a process of its own: two sweeps as a study has them,
with validation and TensorBoard's logs. MiB: weights of F, their gradients and Adam's moments, contexts
of all training tokens, and what is resident at the peak above what was before the module was made.
"""

import argparse
import contextlib
import dataclasses
import io
import multiprocessing
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from benchmarks.phase1 import CASES
from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule
from tuning.training import fit_phase, quieten

_MIB = 2**20
_RESET_PEAK = "5"
_NUM_SWEEPS = 2


class Memory(NamedTuple):
    """Bytes."""

    weights: int
    learning: int
    contexts: int
    peak: int


def measure(config: Config) -> Memory:
    """Trains Phase 1 in this process.

    Raises:
        OSError: the system is not Linux, which alone tells a process its peak.
    """
    quieten()
    datamodule = TokenDataModule(config)
    datamodule.setup()
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    before = _resident("VmRSS")
    L.seed_everything(config.random_seed, verbose=False)
    module = FixedPointModule(config, datamodule.vocab_size)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        fit_phase(
            module, datamodule, config=config, num_epochs=config.phase1_max_epochs,
            logger=TensorBoardLogger(folder, default_hp_metric=False), callbacks=[],
        )  # fmt: skip
    assert module.contexts is not None
    weights = list(module.network.parameters())
    return Memory(
        weights=sum(weight.nbytes for weight in weights),
        learning=3 * sum(weight.nbytes for weight in weights if weight.requires_grad),
        contexts=module.contexts.rows.nbytes,
        peak=_resident("VmHWM") - before,
    )


def _resident(field: str) -> int:
    """Bytes of this process's memory: VmRSS, that of now, or VmHWM, the highest so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def main() -> None:
    options = _options()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.precision}")
    print(f"{'':16}{'weights':>9}{'learning':>9}{'contexts':>9}{'sum':>7}{'peak':>7}   peak / sum")
    for name in options.cases:
        config = dataclasses.replace(
            CASES[name], accelerator="cpu", precision=options.precision, phase1_min_converged_ratio=1.0,
            phase1_max_epochs=_NUM_SWEEPS,
        )  # fmt: skip
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(measure, (config,))
        *parts, peak = found
        print(
            f"{name:16}{found.weights / _MIB:9,.0f}{found.learning / _MIB:9,.0f}"
            f"{found.contexts / _MIB:9,.0f}{sum(parts) / _MIB:7,.0f}{peak / _MIB:7,.0f}"
            f"{peak / sum(parts):13.2f}",
            flush=True,
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--precision", default=Config().precision)
    return parser.parse_args()


if __name__ == "__main__":
    main()
