"""The one training loop of the baselines, and how every model is judged.

Shapes: N rows of T tokens, B of them in a batch, V = vocabulary.
"""

import copy
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.baselines.tied_embedding import TiedEmbedding
from benchmarks.baselines.with_copying import WithCopying
from config import Phase2Optimizer
from lightning_modules.full_batches import FullBatches
from lightning_modules.optimizers import NOT_HIDDEN, Part, phase2_optimizer
from lightning_modules.schedule import with_warmup

_EVALUATED_TOKENS = 4_096
"""Tokens in a batch that is only evaluated."""
_WARMUP_RATIO = 0.1
_GRADIENT_CLIP = 1.0


class Rows(NamedTuple):
    """Token ids of training and validation, (N, T)."""

    train: Tensor
    val: Tensor

    def to(self, device: torch.device) -> "Rows":
        return Rows(self.train.to(device), self.val.to(device))


@dataclass(frozen=True)
class Recipe:
    """How to train.

    learning_rate: the highest, reached after the warm-up over a tenth of all steps.
    weight_decay: decoupled, of matrices.
    num_epochs: after which the learning rate has fallen to 0 along half a cosine.
    patience: epochs without a lower validation loss after which training stops.
    batch_size: rows in a step.
    seed: of the order of the rows, another one in each epoch, and of dropout.
    label_smoothing: as `Config` has it.
    compiled: whether the loss of a full batch is compiled.
    optimizer: as `Config` has it.
    """

    learning_rate: float
    weight_decay: float
    num_epochs: int
    patience: int
    batch_size: int
    seed: int
    label_smoothing: float = 0.0
    compiled: bool = False
    optimizer: Phase2Optimizer = "adamw"


class Training(NamedTuple):
    """model: as it was after the best epoch. val_loss: nats a token then.

    best_epoch, num_epochs: counted from 1. num_passes: over the training rows, those before the
    first epoch included. seconds: wall time, validations included. curve: of each epoch, seconds
    since the start and nats a token.
    """

    model: nn.Module
    val_loss: float
    best_epoch: int
    num_epochs: int
    num_passes: int
    seconds: float
    curve: list[tuple[float, float]]


class BestEpoch:
    """Keeps the weights of the epoch with the lowest validation loss."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.val_loss = math.inf
        self.epoch = 0
        self.curve: list[tuple[float, float]] = []
        self.weights: dict[str, Tensor] = {}

    @property
    def num_epochs(self) -> int:
        return len(self.curve)

    @property
    def is_over(self) -> bool:
        return self.num_epochs - self.epoch >= self.patience

    def look(self, model: nn.Module, val_loss: float) -> None:
        """Takes in the next epoch.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        if not math.isfinite(val_loss):
            raise FloatingPointError(
                f"validation loss {val_loss} after epoch {self.num_epochs + 1}"
            )
        self.curve.append((time.monotonic(), val_loss))
        if val_loss < self.val_loss:
            self.val_loss, self.epoch = val_loss, self.num_epochs
            self.weights = copy.deepcopy(model.state_dict())

    def training(self, model: nn.Module, num_passes: int, start: float) -> Training:
        """What it came to; the model gets the weights of the best epoch back.

        Args:
            model: that was trained.
            num_passes: over the training rows.
            start: of the training, on the clock of `time.monotonic`.
        """
        seconds = time.monotonic() - start
        model.load_state_dict(self.weights)
        return Training(
            model, self.val_loss, self.epoch, self.num_epochs, num_passes, seconds,
            [(at - start, val_loss) for at, val_loss in self.curve],
        )  # fmt: skip


def train(model: nn.Module, rows: Rows, recipe: Recipe) -> Training:
    """The optimiser with warm-up, a cosine to 0, clipping and early stopping; the best epoch is kept.

    Args:
        model: token ids (B, T) to logits (B, T, V); on the device to train on.
        rows: of both splits, on the model's device.
        recipe: see there.

    Raises:
        FloatingPointError: a validation loss is not finite.
    """
    start = time.monotonic()
    torch.manual_seed(recipe.seed)
    order = torch.Generator().manual_seed(recipe.seed)
    best = BestEpoch(recipe.patience)
    loss_of: Callable[[Tensor], Tensor] = functools.partial(
        smoothed_loss, model, label_smoothing=recipe.label_smoothing
    )
    if recipe.compiled:
        loss_of = FullBatches(loss_of)

    def judge() -> bool:
        best.look(model, mean_loss(model, rows.val))
        return best.is_over

    fit(model, loss_of, rows.train, recipe, judge, order)
    return best.training(model, best.num_epochs, start)


def fit(
    model: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    rows_NT: Tensor,
    recipe: Recipe,
    is_over: Callable[[], bool],
    order: torch.Generator | None = None,
) -> None:
    """The optimiser with warm-up, a cosine to 0 and clipping.

    Args:
        model: whose parameters are trained, in training mode.
        loss_of: rows (B, T) to nats.
        rows_NT: token ids.
        recipe: rates, epochs and batches; all else of it is the caller's.
        is_over: asked after every epoch, and may evaluate the model.
        order: of the rows; torch's own generator where None.
    """
    num_batches = -(-len(rows_NT) // recipe.batch_size)
    optimizer = phase2_optimizer(
        recipe.optimizer, [Part(model, recipe.learning_rate)], recipe.weight_decay,
        not_hidden=(*NOT_HIDDEN, TiedEmbedding),
    )  # fmt: skip
    factor = with_warmup("cosine", recipe.num_epochs * num_batches, _WARMUP_RATIO)
    schedule = LambdaLR(optimizer, factor)
    for _ in range(recipe.num_epochs):
        model.train()
        permutation = torch.randperm(len(rows_NT), generator=order)
        for index in torch.split(permutation, recipe.batch_size):
            loss = loss_of(rows_NT[index.to(rows_NT.device)])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has it without types
            nn.utils.clip_grad_norm_(model.parameters(), _GRADIENT_CLIP)
            optimizer.step()
            schedule.step()
        if is_over():
            return


def smoothed_loss(model: nn.Module, tokens_BT: Tensor, label_smoothing: float) -> Tensor:
    """Nats a token with label smoothing of the model's own logits, as our own head is trained."""
    answers_BT = tokens_BT[:, 1:]
    if isinstance(model, WithCopying):
        own_BTV, outputs_BTV = model.own_and_mixed(tokens_BT[:, :-1])
    else:
        own_BTV = outputs_BTV = model(tokens_BT[:, :-1])
    nats = F.cross_entropy(outputs_BTV.flatten(0, 1), answers_BT.flatten())
    if label_smoothing == 0:
        return nats
    answer_BT = own_BTV.gather(-1, answers_BT.unsqueeze(-1)).squeeze(-1)
    return nats + label_smoothing * (answer_BT - own_BTV.mean(dim=-1)).mean()


def next_token_loss(
    model: Callable[[Tensor], Tensor], tokens_BT: Tensor, reduction: str = "mean"
) -> Tensor:
    """Nats a token: position t predicts token t + 1 of its row."""
    logits_BTV = model(tokens_BT[:, :-1])
    return F.cross_entropy(
        logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten(), reduction=reduction
    )


@torch.no_grad()
def mean_loss(model: nn.Module, rows_NT: Tensor) -> float:
    """Nats a token over all rows, without dropout."""
    model.eval()
    num_rows = max(1, _EVALUATED_TOKENS // rows_NT.shape[1])
    batches = torch.split(rows_NT, num_rows)
    losses = [next_token_loss(model, batch, "sum").item() for batch in batches]
    return math.fsum(losses) / rows_NT[:, 1:].numel()
