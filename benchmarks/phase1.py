"""Phase 1 against the arithmetic that it cannot do without.

    python benchmarks/phase1.py [--cases published-640 ...] [--precision bf16-mixed]

Prints, for each size, the seconds of a sweep over the training tokens: of the floor (FLOPs over the
rate of this machine's matrix product), of a bare PyTorch loop, and of the Lightning module through
`fit_phase` with TensorBoard's logs. The three take turns sweep by sweep, so that other work on the
machine hits them alike; of each run the first sweep is left out.
"""

import argparse
import contextlib
import dataclasses
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch.nn.functional import linear

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.training_step import Flops, Phase1Step, flops
from config import Config
from datamodules.row_sampler import RowSampler
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.schedule import with_warmup
from tuning.training import fit_phase, quieten

_PRODUCT_SIZE = 2048
"""Rows and columns of the product whose rate is the machine's."""


def _published(num_samples: int) -> Config:
    return dataclasses.replace(
        Config(), num_layers=6, context_dim=768, embed_dim=768, num_samples=num_samples
    )


CASES: Mapping[str, Config] = {
    "published-640": _published(5),
    "published-6400": _published(50),
    "default": Config(),
    "large": dataclasses.replace(
        Config(), num_layers=2, context_dim=2048, embed_dim=1024, num_samples=50
    ),
}


class Turn(NamedTuple):
    """One sweep of each contender, one after the other: seconds, and FLOPs a second of a product.

    validation: seconds of the validation that followed ours.
    """

    bare: float
    ours: float
    validation: float
    rate: float


class Run(NamedTuple):
    """turns: of all sweeps. whole: seconds of `fit_phase` without the bare loop's part in it.
    difference: between the weights that the two contenders end with, the largest.
    figures: of the last sweep, by name."""

    turns: list[Turn]
    whole: float
    difference: float
    figures: dict[str, float]


def main() -> None:
    options = _options()
    quieten()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.precision}")
    for name in options.cases:
        _compare(name, _config(CASES[name], options), options.repetitions)


class BareLoop:
    """The arithmetic of `FixedPointModule`'s training in a plain loop, without validation."""

    def __init__(self, config: Config, datamodule: TokenDataModule) -> None:
        L.seed_everything(config.random_seed, verbose=False)
        self.config = config
        parts = FixedPointModule(config, datamodule.vocab_size)
        parts.read_training_text(datamodule)
        self.network = parts.network
        self.loader = datamodule.train_dataloader()
        self.step = Phase1Step(self.network, config, bf16=_is_bf16(config))
        num_steps = len(self.loader) * config.phase1_max_epochs
        factor = with_warmup(config.lr_schedule, num_steps, config.warmup_ratio)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.step.optimizer, factor)
        self.contexts = torch.zeros(*datamodule.train_rows.tokens.shape, config.context_dim)

    def sweep(self, epoch: int) -> None:
        """One sweep over the training rows, in the order of that epoch."""
        assert isinstance(self.loader.sampler, RowSampler)
        self.loader.sampler.set_epoch(epoch)
        for batch in self.loader:
            previous = self.contexts[batch.row_index]
            following = self.step(batch.tokens, previous, with_gates=epoch > 0)
            self.contexts[batch.row_index] = following
            self.scheduler.step()


class TakeTurns(L.Callback):
    """Has the bare loop and the matrix product run before every epoch of Lightning's."""

    def __init__(self, bare: BareLoop) -> None:
        self.bare = bare
        self.turns: list[Turn] = []
        self.others = 0.0
        self._bare = self._rate = self._start = self._validation = self._validation_start = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        start = time.perf_counter()
        self._rate = product_rate(self.bare.config)
        self._bare = _seconds(lambda: self.bare.sweep(trainer.current_epoch))
        self._validation = 0.0
        self._start = time.perf_counter()
        self.others += self._start - start

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation = time.perf_counter() - self._validation_start

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        ours = time.perf_counter() - self._start - self._validation
        self.turns.append(Turn(self._bare, ours, self._validation, self._rate))


def run(config: Config, datamodule: TokenDataModule) -> Run:
    """Phase 1 as a study has it, with validation and TensorBoard's logs, and the bare loop."""
    bare = BareLoop(config, datamodule)
    turns = TakeTurns(bare)
    start = time.perf_counter()
    L.seed_everything(config.random_seed, verbose=False)
    module = FixedPointModule(config, datamodule.vocab_size)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        trainer = fit_phase(
            module, datamodule, config=config, num_epochs=config.phase1_max_epochs,
            logger=TensorBoardLogger(folder, default_hp_metric=False), callbacks=[turns],
        )  # fmt: skip
    whole = time.perf_counter() - start - turns.others
    ours = [weight for weight in module.network.parameters() if weight.requires_grad]
    theirs = [weight for weight in bare.network.parameters() if weight.requires_grad]
    pairs = zip(ours, theirs, strict=True)
    difference = max(float((one - other).detach().abs().max()) for one, other in pairs)
    figures = {name: float(figure) for name, figure in trainer.callback_metrics.items()}
    return Run(turns.turns, whole, difference, figures)


def product_rate(config: Config) -> float:
    """FLOPs a second of a square matrix product in the precision of the layers' products."""
    dtype = torch.bfloat16 if _is_bf16(config) else torch.float32
    left, right = (torch.randn(_PRODUCT_SIZE, _PRODUCT_SIZE).to(dtype) for _ in range(2))
    seconds = min(_seconds(lambda: linear(left, right)) for _ in range(3))
    return 2 * _PRODUCT_SIZE**3 / seconds


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _is_bf16(config: Config) -> bool:
    return config.precision == "bf16-mixed"


def _compare(name: str, config: Config, repetitions: int) -> None:
    datamodule = TokenDataModule(config)
    datamodule.setup()
    num_tokens = datamodule.train_rows.tokens.numel()
    print(
        f"\n{name}: {config.memory}, {config.diversity_loss}, {config.num_layers} layers, C = "
        f"{config.context_dim}, E = {config.embed_dim}; {num_tokens:,} tokens, "
        f"{config.batch_size * config.max_seq_length} a step, {config.phase1_max_epochs} sweeps",
        flush=True,
    )
    runs = [run(config, datamodule) for _ in range(repetitions)]
    turns = [turn for one in runs for turn in one.turns[1:]]
    _print_times(turns, flops(config), num_tokens)
    whole = statistics.median(one.whole for one in runs)
    validation = statistics.median(sum(turn.validation for turn in one.turns) for one in runs)
    print(
        f"  whole of Phase 1 {whole:.2f} s, of which validation {validation:.2f} s; weights of the "
        f"two differ by {max(one.difference for one in runs):.1e} at most"
    )
    print("  " + ", ".join(f"{n} {f:.4f}" for n, f in sorted(runs[-1].figures.items())), flush=True)


def _print_times(turns: list[Turn], count: Flops, num_tokens: int) -> None:
    rate = statistics.median(turn.rate for turn in turns)
    print(
        f"  matrix product {rate / 1e9:.0f} GFLOP/s, best {max(t.rate for t in turns) / 1e9:.0f}; "
        f"MFLOP a token: formula {count.formula / 1e6:.2f}, exact {count.exact / 1e6:.2f}, of the whole "
        f"loss {count.whole_loss / 1e6:.2f}"
    )
    print(
        "  seconds a sweep        median     best | share of the rate: formula, exact, whole loss"
    )
    floors = (count.formula, count.exact, count.whole_loss)
    for name, floor in zip(("formula", "exact", "whole loss"), floors, strict=True):
        print(f"  {'floor, ' + name:22} {num_tokens * floor / rate:6.4f}")
    for kind in ("bare", "ours"):
        seconds = [getattr(turn, kind) for turn in turns]
        shares = [
            statistics.median(num_tokens * floor / t.rate / getattr(t, kind) for t in turns)
            for floor in floors
        ]
        print(
            f"  {kind:22} {statistics.median(seconds):6.4f}   {min(seconds):6.4f} | "
            + " ".join(f"{share:.1%}" for share in shares)
        )
    ratio = statistics.median(turn.ours / turn.bare for turn in turns)
    best = min(turn.ours for turn in turns) / min(turn.bare for turn in turns)
    print(f"  ours / bare            {ratio:6.3f}   {best:6.3f}")


def _config(config: Config, options: argparse.Namespace) -> Config:
    return dataclasses.replace(
        config, accelerator="cpu", phase1_max_epochs=options.sweeps, memory=options.memory,
        diversity_loss=options.loss, precision=options.precision, phase1_min_converged_ratio=1.0,
        batch_size=options.batch_size or config.batch_size, phase1_learning_rate=1e-3,
    )  # fmt: skip


def _options() -> argparse.Namespace:
    default = Config()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--sweeps", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--precision", default=default.precision)
    parser.add_argument("--memory", default=default.memory)
    parser.add_argument("--loss", default=default.diversity_loss)
    parser.add_argument("--batch-size", type=int, help="sequences in a step; else the case's own")
    return parser.parse_args()


if __name__ == "__main__":
    main()
