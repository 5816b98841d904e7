"""Phase 1 over more tokens than main memory has room for contexts.

    python benchmarks/many_tokens.py [--num-tokens 10000000] [--storage disk] [--dtype bfloat16]

Trains on real text, the default corpus in a vocabulary of 300 so that it has over ten million
tokens, and prints where the contexts lie, what they take, and the memory of the process: what is its
own, apart from pages of the contexts' file, which the system takes back when it needs them.
"""

import argparse
import dataclasses
import sys
import threading
import time
from pathlib import Path

import lightning as L
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import metric_names as names
from lightning_modules.fixed_point_module import FixedPointModule
from tuning.training import NO_LOGGER, fit_phase

_GIB = 2**30
_TOKENS_A_STEP = 8192


class PeakMemory:
    """Largest anonymous resident memory of this process while it is entered, in bytes."""

    def __init__(self) -> None:
        self.peak = 0
        self._ended = threading.Event()

    def __enter__(self) -> "PeakMemory":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self.peak = max(self.peak, anonymous_memory())


def anonymous_memory() -> int:
    """Bytes of memory that belong to this process alone and to no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["RssAnon"].split()[0]) * 1024


def main() -> None:
    options = _options()
    default = Config()
    config = dataclasses.replace(
        default, vocab_size=300, num_samples=-(-options.num_tokens // default.max_seq_length),
        batch_size=_TOKENS_A_STEP // default.max_seq_length, phase1_max_epochs=options.sweeps,
        context_dim=options.context_dim, precision=options.precision, accelerator="cpu",
        context_dtype=options.dtype, context_storage=options.storage, corpus=options.corpus,
    )  # fmt: skip
    datamodule = TokenDataModule(config)
    datamodule.setup()
    print(datamodule.describe(), flush=True)
    num_tokens = datamodule.train_rows.tokens.numel()
    L.seed_everything(config.random_seed, verbose=False)
    module = FixedPointModule(config, datamodule.vocab_size)
    before, start = anonymous_memory(), time.monotonic()
    with PeakMemory() as memory:
        trainer = fit_phase(
            module, datamodule, config=config, num_epochs=options.sweeps, logger=NO_LOGGER,
            callbacks=[],
        )  # fmt: skip
    seconds = time.monotonic() - start
    assert module.contexts is not None
    kept = module.contexts.rows
    print(
        f"contexts on {module.contexts.place}, {kept.dtype}: {kept.nbytes / _GIB:.2f} GiB; own "
        f"memory at most {memory.peak / _GIB:.2f} GiB, {before / _GIB:.2f} before training\n"
        f"{options.sweeps} sweeps of {num_tokens:,} tokens in {seconds:.0f} s, "
        f"{options.sweeps * num_tokens / seconds:,.0f} tokens a second, validation included "
        f"({config.precision}, {torch.get_num_threads()} threads)\n"
        f"residual {float(trainer.callback_metrics[names.PHASE1_RESIDUAL]):.4f}, effective rank "
        f"{float(trainer.callback_metrics[names.PHASE1_EFFECTIVE_RANK_RATIO]):.1%}"
    )


def _options() -> argparse.Namespace:
    default = Config()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-tokens", type=int, default=10_000_000)
    parser.add_argument("--sweeps", type=int, default=2)
    parser.add_argument("--context-dim", type=int, default=default.context_dim)
    parser.add_argument("--storage", default="disk")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--corpus", default=default.corpus)
    return parser.parse_args()


if __name__ == "__main__":
    main()
