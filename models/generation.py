"""Text without an end: the state has one size, so that a token costs the same at any position.

Shapes: B sequences, T tokens, R recent ones, C = context_dim, D = head_embed_dim, V = vocabulary.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from models.fixed_point import solve_chunks, useful_tolerance
from models.sweeps import Network
from models.token_head import TokenHead

PROMPT_CHUNK = 4096
"""Tokens of a prompt that are solved together: the memory that a prompt takes, however long."""


class TokenNetwork(Network, Protocol):
    """F with its token embedding."""

    def embed(self, tokens: Tensor, /) -> Tensor: ...


class GenerationState(NamedTuple):
    """All that is kept of the text so far.

    context: (B, C), the context that has read every token.
    recent: (B, R), the last tokens, R at least 1: all that the head reads, or fewer in a shorter
        text.
    attention: what each of the head's blocks keeps, of attention of the last positions, or of fewer in
        a shorter text; none without blocks.
    read: (B, 1, D), what the head has made of the last token.
    num_tokens: of the text so far.
    """

    context: Tensor
    recent: Tensor
    attention: tuple[Any, ...]
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
    tolerance = useful_tolerance(network.embed(tokens_BT[:, :1]))
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
    num_new = tokens_BT.shape[1]
    num_tokens, earlier, before_BR, recent_BR = num_new, None, None, tokens_BT
    if state is not None:
        num_tokens, earlier, before_BR = state.num_tokens + num_new, state.attention, state.recent
        recent_BR = torch.cat([before_BR, tokens_BT], dim=1)
    # Of a longer part, what stands further back than the last position's reach is not read, and the
    # state before it is of no use.
    if num_new > head.reach + 1:
        contexts_BTC, tokens_BT = (x[:, -head.reach - 1 :] for x in (contexts_BTC, tokens_BT))
        earlier = before_BR = None
    read = head.read(contexts_BTC, tokens_BT, earlier, num_tokens - tokens_BT.shape[1], before_BR)
    return GenerationState(
        contexts_BTC[:, -1].clone(),
        recent_BR[:, -head.num_recent :].clone(),
        head.attention.kept(read.states),
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
