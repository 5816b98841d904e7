"""Whether a weight of diversity means the same under another momentum and another batch.

    python benchmarks/invariance.py --weights 0.1 0.5 0.9

Phase 1 of 128 x 128 training tokens under each momentum and batch, at an equal number of optimiser
steps; Phase 2 is the same after each. Columns: effective rank on training and on unseen text, which
no sweep is spent on, as shares of C, and the lowest `val_ppl` of the epochs.
"""

import contextlib
import dataclasses
import io
import itertools
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.contexts import rank_of, train
from benchmarks.options import parse, run
from benchmarks.phases import train_phase2
from config import Config, DiversityLoss
from datamodules.token_datamodule import TokenDataModule
from tuning.training import quieten

_RANKED_ROWS = 50


@dataclass(frozen=True)
class Options:
    """What to measure."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Values of random-seed; means are shown, and each."""
    weights: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
    """Values of dist-reg-weight."""
    losses: tuple[DiversityLoss, ...] = (
        "covariance", "variance_covariance", "log_det", "dispersion",
    )  # fmt: skip
    """Diversity losses."""
    momenta: tuple[float, ...] = (0.0, 0.9, 0.99)
    """Values of ema-momentum."""
    batches: tuple[int, ...] = (4, 16, 64)
    """Values of batch-size in Phase 1; Phase 2 has the configuration's."""
    num_steps: int = 128
    """Optimiser steps of Phase 1; whole sweeps of them."""
    threads: int | None = None
    """Of torch; its own number where not given."""


def main() -> int:
    options, config = parse(Options, __doc__, Config(num_samples=128, num_val_samples=64))
    quieten()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    print(
        "loss                weight  momentum  batch tokens  rank: train   val  val_ppl"
        "  each seed's rank and val_ppl"
    )
    for loss, weight, momentum, rows in itertools.product(
        options.losses, options.weights, options.momenta, options.batches
    ):
        changed = dataclasses.replace(
            config, diversity_loss=loss, dist_reg_weight=weight, ema_momentum=momentum
        )
        runs = [
            measure(dataclasses.replace(changed, random_seed=seed), rows, options.num_steps)
            for seed in options.seeds
        ]
        train_mean, val_mean, ppl_mean = (statistics.mean(part) for part in zip(*runs, strict=True))
        each = " ".join(f"{val:.4f} {perplexity:.2f}" for _, val, perplexity in runs)
        print(
            f"{loss:19} {weight:6} {momentum:9} {rows * config.max_seq_length:13} "
            f"{train_mean:12.4f} {val_mean:6.4f} {ppl_mean:8.2f}  {each}",
            flush=True,
        )
    return 0


def measure(config: Config, batch_size: int, num_steps: int) -> tuple[float, float, float]:
    """Effective rank on training and on unseen text, and `val_ppl`; the batch is Phase 1's."""
    unseen = TokenDataModule(config)
    unseen.setup()
    phase1 = dataclasses.replace(
        config, num_val_samples=1, batch_size=batch_size,
        phase1_max_epochs=num_steps * batch_size // len(unseen.train_rows),
    )  # fmt: skip
    module, datamodule, _, _ = train(phase1)
    with contextlib.redirect_stderr(io.StringIO()):
        _, val_ppl = train_phase2(module, unseen, config)
    val_tokens = unseen.val_rows.tokens[:_RANKED_ROWS]
    return rank_of(module, datamodule.train_rows.tokens), rank_of(module, val_tokens), val_ppl


if __name__ == "__main__":
    run(main)
