"""Loss and learning rate of every optimiser step."""

from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_modules import metric_names as names

_STEPS_AT_ONCE = 50
"""Steps whose losses are read from the device together: each reading waits for it."""


class _Step(NamedTuple):
    number: int
    epoch: int
    rate: float


class StepLog(L.Callback):
    """Hands all loggers a row a step, counted from 0; losses are the mean of all ranks' batches.

    What a checkpoint follows on has been written when it is: a continued run adds the rest.
    """

    def __init__(self) -> None:
        self._rate = 0.0
        self._batch_losses: list[Tensor] = []
        self._steps: list[_Step] = []
        self._losses: list[Tensor] = []

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        self._rate = optimizer.param_groups[0]["lr"]

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        # Lightning has divided the loss by the batches of a step.
        self._batch_losses.append(outputs["loss"] * trainer.accumulate_grad_batches)
        is_last = trainer.is_last_batch
        if (batch_idx + 1) % trainer.accumulate_grad_batches > 0 and not is_last:
            return
        self._losses.append(torch.stack(self._batch_losses).mean())
        self._batch_losses = []
        self._steps.append(_Step(trainer.global_step - 1, trainer.current_epoch, self._rate))
        if is_last or len(self._steps) >= _STEPS_AT_ONCE:
            self._hand_over(trainer)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._hand_over(trainer)
        for logger in trainer.loggers:
            logger.save()

    def _hand_over(self, trainer: L.Trainer) -> None:
        if not self._steps:
            return
        losses = trainer.strategy.reduce(torch.stack(self._losses), reduce_op="mean")
        assert isinstance(losses, Tensor)
        for step, loss in zip(self._steps, losses.tolist(), strict=True):
            row = {names.STEP_LOSS: loss, names.LEARNING_RATE: step.rate, "epoch": step.epoch}
            for logger in trainer.loggers:
                logger.log_metrics(row, step.number)
        self._steps, self._losses = [], []
