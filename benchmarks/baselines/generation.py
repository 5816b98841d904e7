"""What a token costs when text is generated, far into a text as near its start.

Shapes: T tokens, V = vocabulary.
"""

import statistics
import time
from typing import Protocol, TypeVar

import torch
from torch import Tensor

_CHUNK = 128
_WARM_UP = 5
_STEPS = 30

State = TypeVar("State")


class Generator(Protocol[State]):
    """A model that reads on from a state."""

    def read(self, tokens_BT: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Anything, and the state after some tokens more."""

    def step(self, tokens_B: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Logits or probabilities (B, V) after one token more, and the state."""


@torch.no_grad()
def milliseconds_a_token(generator: Generator[State], tokens_T: Tensor, position: int) -> float:
    """Median wall time of a step for one row that has read `position` tokens, milliseconds.

    Args:
        generator: with dropout off.
        tokens_T: a text; read again from its start where it is too short.
        position: tokens before the first step that is timed, but for the few of the warm-up.
    """
    num_tokens = position + _STEPS
    text = tokens_T.repeat(-(-num_tokens // len(tokens_T)))[:num_tokens].unsqueeze(0)
    state: State | None = None
    for chunk in torch.split(text[:, : max(0, position - _WARM_UP)], _CHUNK, dim=1):
        if chunk.shape[1] > 0:
            _, state = generator.read(chunk, state)
    seconds = []
    for token in text[:, max(0, position - _WARM_UP) :].unbind(dim=1):
        start = time.perf_counter()
        output, state = generator.step(token, state)
        output.flatten()[0].item()  # waits for an accelerator
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[-_STEPS:])
