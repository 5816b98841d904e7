"""What memory a long training takes, where contexts are kept, and how long it is.

    python benchmarks/long_training.py [--num-samples 2343] [--context-storage disk]

Trains Phase 1 and an epoch of Phase 2 on the default corpus as bytes (`--vocab-size 257`), of which
its training split has 10.6 million, and prints what memory was resident.
"""

import dataclasses
import sys
import time
from pathlib import Path

import lightning as L
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.devices import MIB, resident
from benchmarks.options import parse_config, run
from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.token_prediction_module import TokenPredictionModule
from tuning.training import NO_LOGGER, fit_phase, quieten

_BYTES = 257
"""Entries of a vocabulary of bytes."""


def main() -> None:
    config = parse_config(
        __doc__,
        dataclasses.replace(
            Config(), accelerator="cpu", vocab_size=_BYTES, num_samples=None, batch_size=16,
            phase1_max_epochs=2, phase1_min_converged_ratio=1.0, phase1_learning_rate=1e-3,
            phase2_epochs=1, context_dtype="bfloat16",
        ),
    )  # fmt: skip
    quieten()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {config.precision}")
    datamodule = TokenDataModule(config)
    datamodule.setup()
    print(datamodule.describe(), flush=True)
    L.seed_everything(config.random_seed, verbose=False)
    phase1 = FixedPointModule(config, datamodule.vocab_size)
    _watch("Phase 1", phase1, config, datamodule, config.phase1_max_epochs)
    phase1.forget_contexts()
    phase2 = TokenPredictionModule.from_phase1(phase1, datamodule.vocab_size)
    _watch("Phase 2", phase2, config, datamodule, config.phase2_epochs)


class WatchMemory(L.Callback):
    """The largest resident memory, looked at every few steps.

    anonymous: bytes of the process's own. mapped: bytes of files, which the system takes back when
    it needs them.
    """

    _STEPS = 20

    def __init__(self) -> None:
        self.anonymous = self.mapped = 0

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step % self._STEPS == 0:
            self.look()

    def on_validation_end(self, *_: object) -> None:
        self.look()

    def look(self) -> None:
        """Takes the memory of this moment into account."""
        self.anonymous = max(self.anonymous, resident("RssAnon"))
        self.mapped = max(self.mapped, resident("RssFile") + resident("RssShmem"))


def _watch(
    title: str,
    module: FixedPointModule | TokenPredictionModule,
    config: Config,
    datamodule: TokenDataModule,
    num_epochs: int,
) -> None:
    before, watch = resident("RssAnon"), WatchMemory()
    start = time.perf_counter()
    trainer = fit_phase(
        module, datamodule, config=config, num_epochs=num_epochs, logger=NO_LOGGER,
        callbacks=[watch],
    )  # fmt: skip
    seconds = time.perf_counter() - start
    assert module.contexts is not None
    num_bytes = module.contexts.rows.nbytes
    print(
        f"{title}: {num_epochs} epochs in {seconds:.1f} s; contexts {num_bytes / MIB:,.0f} MiB on "
        f"{module.contexts.place}; resident {(watch.anonymous - before) / MIB:,.0f} MiB above the "
        f"start's {before / MIB:,.0f} MiB, and {watch.mapped / MIB:,.0f} MiB of mapped files"
    )
    for name, figure in sorted(trainer.callback_metrics.items()):
        print(f"  {name} {float(figure):.4f}", flush=True)


if __name__ == "__main__":
    run(main)
