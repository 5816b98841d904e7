"""Sweeps against a scan, and the cost model against both.

    python benchmarks/solver.py [--context-dim 64 256 768] [--tokens 128 1024 4096 16384 65536]

For each size a network is trained by Phase 1 on 50 x 128 tokens, ten sweeps, and then computes the
contexts of real unseen tokens. Two tables a network:

Applications: seconds to apply F to that many contexts, as `models.solver_cost` has it and as it is
measured, the first over the second, and what a quasi-Newton step adds to it, over what it takes.

Solving, a line for each number of rows and of tokens a row:
- seconds of each method, the median of runs that take turns. A mark tells that contexts are not
  within the tolerance: m max_sweeps, n non_finite, a amplified_rounding, g gave_up. In brackets
  what a method would take that was not run, from the length before: it is beyond --limit.
- sweeps of `sweeps`, `quasi_newton` and `blocks`.
- distance: the largest mean square distance of a position from the scan, over the methods that say
  that they converged.
- auto took: the method that `auto` ended with.
- auto/best: its seconds over those of the quickest method that converged.
- scan/best: the scan's seconds over those of the quickest sweeping method that converged.
"""

import argparse
import contextlib
import dataclasses
import io
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.devices import device_name, open_device
from benchmarks.phases import make_phase1
from benchmarks.solving import (
    AnyNetwork,
    Settings,
    application_lines,
    describe,
    print_lines,
    solving_lines,
)
from config import Config, InputError
from datamodules.token_datamodule import TokenDataModule
from tuning.training import quieten


def main() -> None:
    options = _options()
    quieten()
    device = open_device(options.device)
    settings = Settings(options.tolerance, options.max_sweeps, options.repetitions, options.limit)
    print(f"torch {torch.__version__}, {device_name(device)}, {torch.get_num_threads()} threads")
    for context_dim in options.context_dim:
        config = _config(options, context_dim, device)
        datamodule = TokenDataModule(config)
        datamodule.setup("fit")
        network = train(config, datamodule).to(device)
        print(f"\n{describe(network, config.embed_dim)}; trained on {config.num_samples} x "
              f"{config.max_seq_length} tokens", flush=True)  # fmt: skip
        unseen = datamodule.val_rows.tokens.flatten()
        print_lines(application_lines(network, unseen))
        print_lines(solving_lines(network, unseen, options.rows, options.tokens, settings))


def train(config: Config, datamodule: TokenDataModule) -> AnyNetwork:
    """Phase 1, with nothing pruned; the network, in evaluation mode."""
    with contextlib.redirect_stderr(io.StringIO()):
        phase1 = make_phase1(config, datamodule, "trained")
    return phase1.module.network.eval()


def _config(options: argparse.Namespace, context_dim: int, device: torch.device) -> Config:
    return dataclasses.replace(
        Config(), corpus=options.corpus, cache_dir=options.cache_dir, memory=options.memory,
        vocab_size=options.vocab_size, context_dim=context_dim, embed_dim=options.embed_dim,
        num_layers=options.num_layers, num_samples=50, num_val_samples=options.val_samples,
        phase1_max_epochs=options.epochs, phase1_min_converged_ratio=1.0,
        phase1_learning_rate=1e-3, accelerator="cpu" if device.type == "cpu" else "gpu",
    )  # fmt: skip


def _options() -> argparse.Namespace:
    default = Config()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--context-dim", type=int, nargs="+", default=[64, 256, 768])
    parser.add_argument("--embed-dim", type=int, default=default.embed_dim)
    parser.add_argument("--num-layers", type=int, default=default.num_layers)
    parser.add_argument("--memory", choices=("residual", "gated"), default="gated")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 1024, 4096, 16384])
    parser.add_argument("--tolerance", type=float, default=1e-8)
    parser.add_argument("--max-sweeps", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--limit", type=float, default=4.0, help="seconds of a method on a text")
    parser.add_argument("--epochs", type=int, default=10, help="sweeps of the training")
    parser.add_argument("--val-samples", type=int, default=64, help="sequences of unseen text")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--corpus", default=default.corpus)
    parser.add_argument("--vocab-size", type=int, default=default.vocab_size)
    parser.add_argument("--cache-dir", default=default.cache_dir)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
