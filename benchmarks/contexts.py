"""What Phase 1 makes of contexts: rank, convergence and sweeps on unseen text.

    python benchmarks/contexts.py [--seeds 3] [--weights 0 0.1 ...] [--num-layers 1]

Both memories and both diversity losses, on 50 x 128 training and 50 x 128 unseen validation
tokens of the default corpus, C = 768, 10 sweeps, at every weight and seed. Nothing is pruned.
"""

import argparse
import contextlib
import dataclasses
import io
import itertools
import statistics
import sys
import time
from pathlib import Path

import lightning as L
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule
from models.diagnostics import effective_rank, inspect_mapping
from models.fixed_point import solve
from tuning.training import NO_LOGGER, fit_phase, quieten

_ROWS = 50
_TOLERANCE = 1e-4
_MAX_SWEEPS = 64


@dataclasses.dataclass(frozen=True)
class Figures:
    """What one run of Phase 1 gave; all but rank_train on unseen tokens.

    rank_train, rank_val: effective rank, shares of C. converged: share of unseen positions whose
    residual is below the default threshold in the tenth sweep from zeros. sweeps: of the
    quasi-Newton method until every unseen position's residual is below 1e-4.
    """

    rank_train: float
    rank_val: float
    converged: float
    sweeps: float
    cosine: float
    token_sensitivity: float
    seconds: float


def main() -> None:
    options = _options()
    quieten()
    print(
        "memory    loss        weight  rank train   rank val  converged  sweeps  |cos|  tokens  s"
    )
    for memory, loss, weight in itertools.product(
        options.memories, options.losses, options.weights
    ):
        config = dataclasses.replace(
            Config(), memory=memory, diversity_loss=loss, dist_reg_weight=weight,
            num_layers=options.num_layers, num_samples=_ROWS, num_val_samples=_ROWS,
            phase1_max_epochs=10, phase1_min_converged_ratio=1.0,
            phase1_learning_rate=options.learning_rate, ema_momentum=options.ema_momentum,
        )  # fmt: skip
        runs = [
            _run(dataclasses.replace(config, random_seed=seed)) for seed in range(options.seeds)
        ]
        print(f"{memory:9} {loss:10} {weight:7} {_line(runs)}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", type=float, nargs="+", default=[0, 0.1, 0.3, 0.5, 0.7, 0.9])
    parser.add_argument("--memories", nargs="+", default=["residual", "gated"])
    parser.add_argument("--losses", nargs="+", default=["covariance", "log_det"])
    parser.add_argument("--num-layers", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--ema-momentum", type=float, default=0.9)
    return parser.parse_args()


def _run(config: Config) -> Figures:
    L.seed_everything(config.random_seed, verbose=False)
    datamodule = TokenDataModule(config)
    datamodule.setup("fit")
    module = FixedPointModule(config, datamodule.vocab_size)
    start = time.monotonic()
    with contextlib.redirect_stderr(io.StringIO()):
        fit_phase(
            module, datamodule, config=config, num_epochs=config.phase1_max_epochs,
            logger=NO_LOGGER, callbacks=[],
        )  # fmt: skip
    seconds = time.monotonic() - start
    return _figures(module, datamodule, seconds)


@torch.no_grad()
def _figures(module: FixedPointModule, datamodule: TokenDataModule, seconds: float) -> Figures:
    network = module.network
    embeddings, contexts = [], []
    for rows in (datamodule.train_rows, datamodule.val_rows):
        embeddings.append(network.embed(rows.tokens))
        contexts.append(
            solve(network, embeddings[-1], tolerance=1e-8, max_sweeps=128, method="scan").contexts
        )
    width = network.context_dim
    report = inspect_mapping(network, contexts[1], embeddings[1])
    one_less, swept = (
        solve(network, embeddings[1], tolerance=1e-30, max_sweeps=n, method="quasi_newton").contexts
        for n in (9, 10)
    )
    residual = (swept - one_less).square().mean(dim=-1)
    below = residual < module.config.phase1_convergence_threshold
    solved = solve(
        network, embeddings[1], tolerance=_TOLERANCE, max_sweeps=_MAX_SWEEPS, method="quasi_newton"
    )
    return Figures(
        rank_train=effective_rank(contexts[0].flatten(0, 1)) / width,
        rank_val=effective_rank(contexts[1].flatten(0, 1)) / width,
        converged=float(below.float().mean()),
        sweeps=solved.num_sweeps if solved.converged else float("inf"),
        cosine=report.context_cosine,
        token_sensitivity=report.token_sensitivity,
        seconds=seconds,
    )


def _line(runs: list[Figures]) -> str:
    def spread(name: str) -> str:
        values = [getattr(run, name) for run in runs]
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{statistics.mean(values):.3f}±{deviation:.3f}"

    def mean(name: str) -> float:
        return statistics.mean(getattr(run, name) for run in runs)

    worst = max(run.sweeps for run in runs)
    return (
        f"{spread('rank_train'):>11} {spread('rank_val'):>11} {mean('converged'):8.3f} "
        f"{'> ' + str(_MAX_SWEEPS) if worst == float('inf') else int(worst):>7} "
        f"{mean('cosine'):7.3f} {mean('token_sensitivity'):6.3f} {mean('seconds'):5.1f}"
    )


if __name__ == "__main__":
    main()
