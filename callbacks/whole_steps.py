"""A step of fewer batches than others has the mean of their gradients, as others have."""

import lightning as L
import torch
from torch.optim import Optimizer


class WholeSteps(L.Callback):
    """Corrects an epoch's last step, whose batches Lightning divides by those of a full step."""

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        num_batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        num_left = num_batches % trainer.accumulate_grad_batches
        if num_left == 0:
            return
        gradients = [
            weight.grad
            for group in optimizer.param_groups
            for weight in group["params"]
            if weight.grad is not None
        ]
        torch._foreach_mul_(gradients, trainer.accumulate_grad_batches / num_left)
