"""Peak memory of Phase 1, and of how much of it the parts that cannot be missed account for.

    python benchmarks/phase1_memory.py [--cases published-640 ...] [--precision bf16-mixed]

The sizes are those of `phase1.py`. Each line is a process of its own: two sweeps as a study has them,
with validation and TensorBoard's logs. MiB: weights of F, their gradients and Adam's moments, contexts
of all training tokens, and what is resident at the peak above what was before the module was made.
"""

import contextlib
import dataclasses
import io
import multiprocessing
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from benchmarks.devices import CPU, MIB, peak_above, start_peak
from benchmarks.options import parse_alone, run
from benchmarks.phase1 import CASES
from config import Config, Precision, require
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule
from tuning.training import fit_phase, quieten

_NUM_SWEEPS = 2


@dataclass(frozen=True)
class Options:
    """What to measure."""

    cases: tuple[str, ...] = tuple(CASES)
    """Which sizes."""
    precision: Precision = Config.precision
    """Arithmetic of the training."""

    def __post_init__(self) -> None:
        for case in self.cases:
            require(case in CASES, "cases", case, f"among {', '.join(CASES)}")


class Memory(NamedTuple):
    """Bytes: weights of F; what is kept to train them, a gradient and Adam's two moments of each
    (`learning`); contexts of all training tokens; and the peak above what was before the module."""

    weights: int
    learning: int
    contexts: int
    peak: int


def measure(config: Config) -> Memory:
    """Trains Phase 1 in this process.

    Raises:
        InputError: the system does not tell a process its peak.
    """
    quieten()
    datamodule = TokenDataModule(config)
    datamodule.setup()
    start = start_peak(CPU)
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
        peak=peak_above(start, CPU),
    )


def main() -> None:
    options = parse_alone(Options, __doc__)
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
            f"{name:16}{found.weights / MIB:9,.0f}{found.learning / MIB:9,.0f}"
            f"{found.contexts / MIB:9,.0f}{sum(parts) / MIB:7,.0f}{peak / MIB:7,.0f}"
            f"{peak / sum(parts):13.2f}",
            flush=True,
        )


if __name__ == "__main__":
    run(main)
