"""Learning-rate schedules as factors of the highest rate."""

import math
from collections.abc import Callable

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_then_cosine(num_steps: int, warmup_ratio: float) -> Callable[[int], float]:
    """Linear rise over the first share of the steps, then half a cosine down to 0."""
    num_warmup_steps = max(1, round(warmup_ratio * num_steps))

    def factor(step: int) -> float:
        if step < num_warmup_steps:
            return (step + 1) / num_warmup_steps
        progress = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    return factor


def scheduled(
    optimizer: Optimizer, num_steps: int, warmup_ratio: float
) -> OptimizerLRSchedulerConfig:
    """An optimiser with `warmup_then_cosine` at every step, as Lightning takes it."""
    scheduler = LambdaLR(optimizer, warmup_then_cosine(num_steps, warmup_ratio))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
