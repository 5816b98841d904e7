"""Text without an end: the state has one size, so that a token costs the same at any position.

Shapes: B sequences, T tokens, R recent ones, S = attention_window - 1, C = context_dim,
D = head_embed_dim, V = vocabulary.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from models.attention import KeyValue
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
    recent: (B, R), the last tokens, R at least 1: all that the head copies from, or fewer in a
        shorter text.
    key_values: keys and values of the last S positions in each block of the head's attention, or
        fewer in a shorter text; none without attention.
    read: (B, 1, D), what the head has made of the last token.
    num_tokens: of the text so far.
    """

    context: Tensor
    recent: Tensor
    key_values: tuple[KeyValue, ...]
    read: Tensor
    num_tokens: int


@torch.no_grad()
def read_prompt(
    network: TokenNetwork,
    head: TokenHead,
    tokens_BT: Tensor,
    state: GenerationState | None = None,
) -> GenerationState:
    """Reads tokens in parallel, `PROMPT_CHUNK` at a time.

    Args:
        network: F.
        head: that goes on, in evaluation mode.
        tokens_BT: (B, T), T at least 1.
        state: of the text before; None at its start.

    Raises:
        ValueError: there is no token.
    """
    if tokens_BT.numel() == 0:
        raise ValueError(f"a prompt of shape {tuple(tokens_BT.shape)} holds no token")
    chunks = torch.split(tokens_BT, PROMPT_CHUNK, dim=1)
    embeddings = (network.embed(chunk) for chunk in chunks)
    # Below the arithmetic's rounding only a scan would end converged.
    weight = network.embed(tokens_BT[:, :1])
    tolerance = max(_TOLERANCE, (8 * rounding_unit(weight)) ** 2)
    parts = solve_chunks(
        network,
        embeddings,
        tolerance=tolerance,
        max_sweeps=PROMPT_CHUNK,
        initial=None if state is None else state.context,
    )
    for chunk_BT, part in zip(chunks, parts, strict=True):
        state = _gone_on(head, state, part.contexts, chunk_BT)
    assert state is not None
    return state


@torch.no_grad()
def read_token(
    network: TokenNetwork, head: TokenHead, state: GenerationState, token_B: Tensor
) -> GenerationState:
    """The state after one more token: a single application of F and of the head."""
    context_BC = network(state.context, network.embed(token_B))
    return _gone_on(head, state, context_BC.unsqueeze(1), token_B.unsqueeze(1))


@torch.no_grad()
def next_logits(head: TokenHead, state: GenerationState) -> Tensor:
    """Logits (B, V) of the token after a state."""
    recent_BR = state.recent
    return head.logits(state.read, recent_BR[:, -1:], recent_BR[:, :-1]).squeeze(1)


def _gone_on(
    head: TokenHead, state: GenerationState | None, contexts_BTC: Tensor, tokens_BT: Tensor
) -> GenerationState:
    """The state after more contexts; it holds on to none of what it was made from."""
    attention = head.attention
    num_tokens, earlier, recent_BR = 0, None, tokens_BT
    if state is not None:
        num_tokens, earlier = state.num_tokens, state.key_values
        recent_BR = torch.cat([state.recent, tokens_BT], dim=1)
    num_tokens += tokens_BT.shape[1]
    # Of a longer part, what stands further back than the last position's attention reaches is
    # not read, and the state before it is of no use.
    if tokens_BT.shape[1] > attention.reach:
        contexts_BTC, tokens_BT = (x[:, -attention.reach :] for x in (contexts_BTC, tokens_BT))
        earlier = None
    read = head.read(contexts_BTC, tokens_BT, earlier, first=num_tokens - tokens_BT.shape[1])
    return GenerationState(
        contexts_BTC[:, -1].clone(),
        recent_BR[:, -head.num_recent :].clone(),
        tuple(seen.last(attention.window - 1).clone() for seen in read.key_values),
        read.output[:, -1:].clone(),
        num_tokens,
    )


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
        state = read_token(network, head, state, token_B)
