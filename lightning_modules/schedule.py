"""Learning-rate schedules as factors of the highest rate."""

import math
from collections.abc import Callable, Mapping

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from config import LrSchedule

_DECAY_SHARE = 0.2
"""Share of all steps in which `warmup_stable_decay` falls (MiniCPM, arXiv 2404.06395)."""


def with_warmup(
    schedule: LrSchedule, num_steps: int, warmup_ratio: float
) -> Callable[[int], float]:
    """Linear rise over the first share of the steps, then what the schedule does.

    Args:
        schedule: after the rise.
        num_steps: in all.
        warmup_ratio: share of the steps in which the rate rises, from 0 to 1.

    Returns:
        The factor, from 0 to 1, of a step, counted from 0.
    """
    num_warmup_steps = max(1, round(warmup_ratio * num_steps))
    fall = _FALLS[schedule]

    def factor(step: int) -> float:
        if step < num_warmup_steps:
            return (step + 1) / num_warmup_steps
        return fall(step, num_warmup_steps, num_steps)

    return factor


def scheduled(
    optimizer: Optimizer, schedule: LrSchedule, num_steps: int, warmup_ratio: float
) -> OptimizerLRSchedulerConfig:
    """An optimiser with a schedule at every step, as Lightning takes it."""
    scheduler = LambdaLR(optimizer, with_warmup(schedule, num_steps, warmup_ratio))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _progress(step: int, first: int, last: int) -> float:
    """How much of the steps from first to last has passed, from 0 to 1."""
    return min(max(0.0, (step - first) / max(1, last - first)), 1.0)


def _cosine(step: int, num_warmup_steps: int, num_steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * _progress(step, num_warmup_steps, num_steps)))


def _linear(step: int, num_warmup_steps: int, num_steps: int) -> float:
    return 1 - _progress(step, num_warmup_steps, num_steps)


def _constant(step: int, num_warmup_steps: int, num_steps: int) -> float:
    return 1.0


def _inverse_sqrt(step: int, num_warmup_steps: int, num_steps: int) -> float:
    return math.sqrt(num_warmup_steps / (step + 1))


def _warmup_stable_decay(step: int, num_warmup_steps: int, num_steps: int) -> float:
    first = max(num_warmup_steps, round((1 - _DECAY_SHARE) * num_steps))
    return 1 - _progress(step, first, num_steps)


_FALLS: Mapping[LrSchedule, Callable[[int, int, int], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
    "inverse_sqrt": _inverse_sqrt,
    "warmup_stable_decay": _warmup_stable_decay,
}
