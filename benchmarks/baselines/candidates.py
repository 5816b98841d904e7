"""The trained models of the comparison, each with what is tuned of it and how it is trained."""

import dataclasses
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from benchmarks.baselines.generation import Generator
from benchmarks.baselines.gpt import GPT
from benchmarks.baselines.gpt import NUM_HEADS as GPT_HEADS
from benchmarks.baselines.lstm import LSTM
from benchmarks.baselines.min_gru import MinGRU
from benchmarks.baselines.ours import VARIANTS, ContextGenerator, Overrides, sized, train_ours
from benchmarks.baselines.sizing import solve_size
from benchmarks.baselines.training import Recipe, Rows, Training, train
from benchmarks.baselines.with_copying import WithCopying
from config import Config, InputError
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.token_prediction_module import TokenPredictionModule
from tuning.search_space import TUNABLE, Range

BASELINES = ("lstm", "gpt", "mingru")

_DROPOUT = Range(0.0, 0.7, log=False)
_WEIGHT_DECAY = Range(1e-2, 3.0, log=True)
_HIGHEST = {"learning_rate": math.inf, "dropout": 1.0, "weight_decay": math.inf}
"""What is tuned of LSTM, GPT and minGRU, and the bound that a value is below."""
_RANGES: Mapping[str, Mapping[str, Range]] = types.MappingProxyType(
    {
        "lstm": {"learning_rate": Range(1e-3, 2e-2, log=True)},
        "gpt": {"learning_rate": Range(3e-4, 1e-2, log=True)},
        "mingru": {"learning_rate": Range(1e-3, 2e-2, log=True)},
    }
)
FIRST: Mapping[str, dict[str, float]] = types.MappingProxyType(
    {
        "lstm": {"learning_rate": 9e-3, "dropout": 0.04, "weight_decay": 1.8},
        "gpt": {"learning_rate": 2e-3, "dropout": 0.2, "weight_decay": 0.1},
        "mingru": {"learning_rate": 1.4e-2, "dropout": 0.23, "weight_decay": 0.65},
    }
)
"""The best of six trials at 64,000 tokens and 1.5 million parameters, as `_OURS_FIRST` is of more."""
_OURS_RANGES: Mapping[str, Range] = types.MappingProxyType(
    {
        "phase2_learning_rate": Range(1e-3, 3e-2, log=True),
        "dropout": _DROPOUT,
        "weight_decay": _WEIGHT_DECAY,
    }
)
_OURS_FIRST: Mapping[str, float] = types.MappingProxyType(
    {"phase2_learning_rate": 8e-3, "dropout": 0.1, "weight_decay": 1.0, "dist_reg_weight": 0.02}
)


class Task(NamedTuple):
    """What all models have in common.

    config: data, sizes of batches, and what our own model starts from.
    target: number of parameters.
    num_epochs, patience: as `Recipe` has them.
    overrides: fields of `config` that were set for our own model, and are neither scaled nor tuned.
    given: values of the other models that were set, and are not tuned.
    compiled: whether training steps are compiled.
    """

    config: Config
    datamodule: TokenDataModule
    target: float
    num_epochs: int
    patience: int
    device: torch.device
    overrides: Overrides
    given: Mapping[str, float]
    compiled: bool


def parse_given(pairs: Sequence[str]) -> dict[str, float]:
    """`NAME=VALUE` texts to values of what is tuned of LSTM, GPT and minGRU.

    Raises:
        InputError: nothing that is tuned, or a value out of its range.
    """
    given: dict[str, float] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if name not in _HIGHEST:
            raise InputError(
                f"--baselines {pair!r} must be NAME=VALUE, NAME one of {', '.join(_HIGHEST)}."
            )
        try:
            given[name] = float(text)
        except ValueError as error:
            raise InputError(f"--baselines {pair!r}: the value must be a number.") from error
        highest = _HIGHEST[name]
        if not 0 <= given[name] < highest:
            right = "0 or more" if highest == math.inf else f"at least 0 and below {highest:g}"
            raise InputError(f"--baselines {pair!r}: the value must be {right}.")
    return given


class Candidate(Protocol):
    """A model of the comparison.

    ranges: what is tuned. first: the values of the first trial.
    """

    ranges: Mapping[str, Range]
    first: Mapping[str, float]

    def train(self, values: Mapping[str, float], seed: int) -> Training:
        """Trains with values of what is tuned."""

    def generator(self, model: nn.Module) -> Generator[Any]:
        """Reads on with a model that was trained."""


def candidate(name: str, task: Task) -> Candidate:
    """The model of a name in `BASELINES` or `VARIANTS`, of the task's number of parameters."""
    return Baseline(name, task) if name in BASELINES else Ours(name, task)


class Baseline:
    """LSTM, GPT or minGRU, of the width that has the number of parameters."""

    def __init__(self, name: str, task: Task) -> None:
        self.task = task
        self._name = name
        ranges = {**_RANGES[name], "dropout": _DROPOUT, "weight_decay": _WEIGHT_DECAY}
        self.ranges: Mapping[str, Range] = {
            name: ranges[name] for name in ranges if name not in task.given
        }
        self.first: Mapping[str, float] = {tuned: FIRST[name][tuned] for tuned in self.ranges}
        self._make = _maker(name, task)
        self._size = solve_size(lambda size: self._make(size, 0.0), task.target)

    def train(self, values: Mapping[str, float], seed: int) -> Training:
        task, data = self.task, self.task.datamodule
        values = {**values, **task.given}
        torch.manual_seed(seed)
        model = self._make(self._size, values["dropout"])
        model.embedding.set_token_counts(data.token_counts())
        rows = Rows(data.train_rows.tokens, data.val_rows.tokens)
        recipe = Recipe(
            learning_rate=values["learning_rate"],
            weight_decay=values["weight_decay"],
            num_epochs=task.num_epochs,
            patience=task.patience,
            batch_size=task.config.batch_size,
            seed=seed,
            label_smoothing=task.config.label_smoothing,
            # cuDNN's recurrence is one call, which a compiler would take apart.
            compiled=task.compiled and self._name != "lstm",
            optimizer=task.config.phase2_optimizer,
        )
        return train(model.to(task.device), rows.to(task.device), recipe)

    def generator(self, model: nn.Module) -> Generator[Any]:
        assert isinstance(model, (LSTM, GPT, MinGRU, WithCopying))
        return model


class Ours:
    """Our own model, its sizes scaled together to the number of parameters."""

    def __init__(self, name: str, task: Task) -> None:
        self.task = task
        self._variant = VARIANTS[name]
        ranges = dict(_OURS_RANGES)
        if self._variant.network == "trained":
            ranges["dist_reg_weight"] = TUNABLE["dist_reg_weight"]
        self.ranges: Mapping[str, Range] = {
            name: ranges[name] for name in ranges if name not in task.overrides
        }
        self._config = sized(
            dataclasses.replace(
                task.config, **task.overrides, phase2_epochs=task.num_epochs,
                freeze_context=self._variant.freeze_context,
            ),
            tuple(task.overrides), task.datamodule.vocab_size, task.target,
        )  # fmt: skip
        self.first: Mapping[str, float] = {name: _OURS_FIRST[name] for name in self.ranges}

    def train(self, values: Mapping[str, float], seed: int) -> Training:
        config = dataclasses.replace(self._config, **values, random_seed=seed)  # type: ignore[arg-type]  # all are float
        task = self.task
        training = train_ours(
            config, task.datamodule, self._variant, task.patience, compiled=task.compiled
        )
        return training._replace(model=training.model.to(self.task.device))

    def generator(self, model: nn.Module) -> Generator[Any]:
        assert isinstance(model, TokenPredictionModule)
        return ContextGenerator(model)


def _maker(name: str, task: Task) -> Callable[[int, float], LSTM | GPT | MinGRU | WithCopying]:
    vocab_size = task.datamodule.vocab_size

    def own(size: int, dropout: float) -> LSTM | GPT | MinGRU:
        if name == "lstm":
            return LSTM(vocab_size=vocab_size, width=size, dropout=dropout)
        if name == "mingru":
            return MinGRU(vocab_size=vocab_size, width=size, dropout=dropout)
        return GPT(
            vocab_size=vocab_size,
            width=GPT_HEADS * size,
            dropout=dropout,
            window=task.config.max_seq_length,
        )

    def make(size: int, dropout: float) -> LSTM | GPT | MinGRU | WithCopying:
        model, window = own(size, dropout), task.config.copy_window
        return WithCopying(model, window) if window > 0 else model

    return make
