"""Text without an end: the state has one size, so that a token costs the same at any position.

Shapes: B sequences, T tokens, R recent ones, C = context_dim, V = vocabulary.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from models.fixed_point import solve_chunks
from models.sweeps import Network
from models.token_head import TokenHead
from models.windows import rounding_unit

PROMPT_CHUNK = 4096
"""Tokens of a prompt that are solved together: the memory that a prompt takes, however long."""

_TOLERANCE = 1e-8
"""Mean square distance of a prompt's contexts from those found token by token."""


class TokenNetwork(Network, Protocol):
    """F with its token embedding."""

    def embed(self, tokens: Tensor, /) -> Tensor: ...


class GenerationState(NamedTuple):
    """All that is kept of the text so far.

    context: (B, C), the context that has read every token.
    recent: (B, R), the last tokens, R at least 1: all that the head reads, or fewer in a shorter text.
    """

    context: Tensor
    recent: Tensor


@torch.no_grad()
def read_prompt(network: TokenNetwork, tokens_BT: Tensor, num_recent: int) -> GenerationState:
    """Reads tokens in parallel, `PROMPT_CHUNK` at a time.

    Args:
        network: F.
        tokens_BT: (B, T), T at least 1.
        num_recent: R, the `num_recent` of the head that goes on.

    Raises:
        ValueError: there is no token.
    """
    if tokens_BT.numel() == 0:
        raise ValueError(f"a prompt of shape {tuple(tokens_BT.shape)} holds no token")
    embeddings = (network.embed(chunk) for chunk in torch.split(tokens_BT, PROMPT_CHUNK, dim=1))
    # Below the arithmetic's rounding only a scan would end converged.
    weight = network.embed(tokens_BT[:, :1])
    tolerance = max(_TOLERANCE, (8 * rounding_unit(weight)) ** 2)
    for part in solve_chunks(network, embeddings, tolerance=tolerance, max_sweeps=PROMPT_CHUNK):
        last_BC = part.contexts[:, -1].clone()
    return GenerationState(last_BC, tokens_BT[:, -num_recent:].clone())


@torch.no_grad()
def read_token(
    network: TokenNetwork, state: GenerationState, token_B: Tensor, num_recent: int
) -> GenerationState:
    """The state after one more token: a single application of F."""
    recent_BR = torch.cat([state.recent, token_B.unsqueeze(1)], dim=1)[:, -num_recent:]
    return GenerationState(network(state.context, network.embed(token_B)), recent_BR)


@torch.no_grad()
def next_logits(head: TokenHead, state: GenerationState) -> Tensor:
    """Logits (B, V) of the token after a state."""
    recent_BR = state.recent
    logits_B1V: Tensor = head(state.context.unsqueeze(1), recent_BR[:, -1:], recent_BR[:, :-1])
    return logits_B1V.squeeze(1)


@torch.no_grad()
def generate(
    network: TokenNetwork,
    head: TokenHead,
    state: GenerationState,
    choose: Callable[[Tensor], Tensor],
) -> Iterator[Tensor]:
    """Goes on from a state without end.

    Args:
        network: F.
        head: in evaluation mode, or dropout adds its noise.
        state: the text so far.
        choose: (B, V) logits to the (B,) tokens that follow.

    Yields:
        (B,) token ids.
    """
    while True:
        token_B = choose(next_logits(head, state)).to(state.recent.device)
        yield token_B
        state = read_token(network, state, token_B, head.num_recent)
