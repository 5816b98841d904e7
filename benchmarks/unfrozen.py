"""Contexts that the second phase trains on: how far back gradients flow, and what Phase 1 is worth.

    python benchmarks/unfrozen.py --num-samples 500 --dropout 0.1 --weight-decay 1 --dist-reg-weight 0.02
    python benchmarks/unfrozen.py --gradients sweeps-1 memory-1 --seeds 0 1 2

A line for each gradient and for frozen contexts, with Phase 1 and without it (weights of F as they
were drawn; gates know the tokens' counts). `sweeps-k` lets gradients flow through the last k sweeps of
warm-started contexts, k tokens back; sweeps-1 is the one-step gradient, which leaves the Jacobian of
F out. `memory-k` carries them on over the whole text as far as F remembers.

Columns: lowest `val_ppl` of the epochs, mean and standard deviation over seeds; seconds of an epoch
of Phase 2, validation left out; quasi-Newton sweeps until the residual of every position of 16
unseen rows is below 1e-4 afterwards, of the first seed.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lightning as L
import torch

from benchmarks.options import parse, run
from benchmarks.phases import State, make_phase1, train_phase2
from benchmarks.solving import sweeps_to_tolerance
from config import Config, InputError, Phase2Gradient, require
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule

_FROZEN = "frozen"
_ROWS = 16
_STATES: dict[State, str] = {"trained": "yes", "untrained": "no"}
"""Of F, and whether that is with Phase 1."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    gradients: tuple[str, ...] = (
        _FROZEN, "sweeps-1", "sweeps-2", "sweeps-4", "sweeps-8", "memory-1", "memory-2",
    )  # fmt: skip
    """`frozen`, `sweeps-k` or `memory-k`."""
    seeds: tuple[int, ...] = (0,)
    """Values of random-seed."""

    def check(self) -> None:
        """Raises `InputError` where a field is out of its range."""
        for name in ("gradients", "seeds"):
            require(bool(getattr(self, name)), name, (), "one or more")
        for gradient in self.gradients:
            configured(Config(), gradient)


class Start(NamedTuple):
    """F as Phase 2 starts from it. random_state: of torch then, from which the head is drawn."""

    phase1: FixedPointModule
    random_state: torch.Tensor


class Cell(NamedTuple):
    """One training of Phase 2."""

    val_ppl: float
    epoch_seconds: float
    sweeps: float


class EpochSeconds(L.Callback):
    """Wall time of the epochs, validation left out."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = time.monotonic()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds.append(time.monotonic() - self._start)


def configured(config: Config, gradient: str) -> Config:
    """The configuration with a gradient by its name.

    Raises:
        InputError: there is none of that name.
    """
    if gradient == _FROZEN:
        return dataclasses.replace(config, freeze_context=True)
    name, _, number = gradient.partition("-")
    kinds = [kind for kind in get_args(Phase2Gradient) if kind == name]
    if not kinds or not number.isdigit() or int(number) < 1:
        raise InputError(
            f"--gradients has {gradient!r}; it must be frozen, sweeps-k or memory-k, k 1 or more."
        )
    return dataclasses.replace(
        config, freeze_context=False, phase2_gradient=kinds[0], phase2_num_sweeps=int(number)
    )


def started(config: Config, data: TokenDataModule, state: State) -> Start:
    """What all gradients have in common, made once."""
    phase1 = make_phase1(config, data, state).module
    return Start(phase1, torch.get_rng_state())


def measure(start: Start, config: Config, data: TokenDataModule) -> Cell:
    """Trains Phase 2 once, on what is left as it is."""
    clock = EpochSeconds()
    torch.set_rng_state(start.random_state)
    module, val_ppl = train_phase2(start.phase1, data, config, callbacks=[clock])
    unseen_BTE = module.network.embed(data.val_rows.tokens[:_ROWS]).detach()
    return Cell(
        val_ppl, statistics.median(clock.seconds), sweeps_to_tolerance(module.network, unseen_BTE)
    )


def main() -> int:
    options, config = parse(Options, __doc__)
    options.check()
    data = TokenDataModule(config)
    data.setup()
    print(data.describe())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("gradient   Phase 1  val_ppl     sd  s an epoch  sweeps   each seed")
    for state in _STATES:
        seeded = [dataclasses.replace(config, random_seed=seed) for seed in options.seeds]
        starts = [(started(one, data, state), one) for one in seeded]
        for gradient in options.gradients:
            cells = [measure(made, configured(one, gradient), data) for made, one in starts]
            print(_line(gradient, cells, state), flush=True)
    return 0


def _line(gradient: str, cells: list[Cell], state: State) -> str:
    values = [cell.val_ppl for cell in cells]
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    each: Callable[[float], str] = "{:7.2f}".format
    return (
        f"{gradient:10} {_STATES[state]:7} {statistics.mean(values):8.2f} "
        f"{deviation:6.2f} {statistics.median(cell.epoch_seconds for cell in cells):11.2f} "
        f"{cells[0].sweeps:7g}   {' '.join(map(each, values))}"
    )


if __name__ == "__main__":
    run(main)
