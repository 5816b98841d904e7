"""Generation: the model's own distribution, from a state that does not grow."""

from itertools import islice

import pytest
import torch
from torch import Tensor

import models.generation
from models.context_network import ContextNetwork
from models.gated_network import GatedContextNetwork
from models.generation import GenerationState, generate, read_prompt, read_token
from models.recurrence import RecurrentBlock
from models.scan import scan
from models.token_head import Recall, TokenHead

V, C, E = 19, 12, 6

AnyNetwork = ContextNetwork | GatedContextNetwork


@pytest.fixture(params=[ContextNetwork, GatedContextNetwork])
def network(request: pytest.FixtureRequest) -> AnyNetwork:
    torch.manual_seed(0)
    return request.param(vocab_size=V, context_dim=C, embed_dim=E, num_layers=2, update_scale=0.7)


@pytest.fixture(
    params=[
        Recall(), Recall(copy_window=4), Recall(100, 5), Recall(2, 100), Recall(0, 1),
        Recall(0, 1, 3), Recall(3, 4, 2), Recall(0, 3, 3), Recall(kernel=3), Recall(2, kernel=6),
        Recall(0, 4, 2, kernel=2), Recall(3, 3, 2, 4, query_key_norm=True, feed_forward_factor=1),
        Recall(recurrent_layers=1), Recall(2, 4, 1, 3, recurrent_layers=2), Recall(0, 4, 2, recurrent_layers=1),
    ],
    ids=str,
)  # fmt: skip
def head(request: pytest.FixtureRequest) -> TokenHead:
    torch.manual_seed(1)
    made = TokenHead(
        vocab_size=V, context_dim=C, embed_dim=5, hidden_dim=8, dropout=0.3, context_scale=1.0,
        prior_count=0.0, recall=request.param,
    )  # fmt: skip
    torch.nn.init.normal_(made.update.weight)
    for part in (made.attention, made.convolution):
        for weight in part.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    return made.eval()


def tokens(num_rows: int, num_tokens: int) -> Tensor:
    return torch.randint(V, (num_rows, num_tokens), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("num_tokens", [1, 7, 8, 9, 30])
def test_a_prompt_read_in_chunks_is_the_scan(
    network: AnyNetwork, head: TokenHead, monkeypatch: pytest.MonkeyPatch, num_tokens: int
) -> None:
    monkeypatch.setattr(models.generation, "PROMPT_CHUNK", 8)
    prompt = tokens(2, num_tokens)
    state = read_prompt(network, head, prompt)
    with torch.no_grad():
        contexts = scan(network, network.embed(prompt), torch.zeros(2, C))
        attended = head.read(contexts, prompt)
    torch.testing.assert_close(state.context, contexts[:, -1], rtol=0, atol=5e-4)
    torch.testing.assert_close(state.read, attended.output[:, -1:], rtol=0, atol=2e-3)
    expected = head.attention.kept(attended.states)
    torch.testing.assert_close(state.attention, expected, rtol=0, atol=2e-3)
    assert state.num_tokens == num_tokens
    assert torch.equal(state.recent, prompt[:, -head.num_recent :])
    if num_tokens > 1:
        first = read_prompt(network, head, prompt[:, :-1])
        for after in (
            read_prompt(network, head, prompt[:, -1:], first),
            read_token(network, head, first, prompt[:, -1]),
        ):
            torch.testing.assert_close(after, state, rtol=0, atol=2e-3)


def test_tokens_one_by_one_have_the_distribution_of_the_whole_text(
    network: AnyNetwork, head: TokenHead
) -> None:
    text = tokens(2, 24)
    seen = []
    given = iter(text[:, 10:].unbind(dim=1))

    def choose(logits: Tensor) -> Tensor:
        seen.append(logits)
        return next(given)

    state = read_prompt(network, head, text[:, :10])
    generated = list(islice(generate(network, head, state, choose), 14))
    assert torch.equal(torch.stack(generated, dim=1), text[:, 10:])
    with torch.no_grad():
        contexts = scan(network, network.embed(text), torch.zeros(2, C))
        expected = head(contexts, text)[:, 9:-1]
    torch.testing.assert_close(torch.stack(seen, dim=1), expected, rtol=0, atol=2e-3)
    assert (expected[:, 1:] - expected[:, :-1]).abs().max() > 0.1


@pytest.mark.parametrize("num_read", [1, 100])
def test_a_token_costs_one_application_of_f_to_one_context_at_any_position(
    network: AnyNetwork, head: TokenHead, num_read: int
) -> None:
    state = read_prompt(network, head, tokens(1, num_read))
    applied: list[tuple[int, ...]] = []
    network.register_forward_pre_hook(lambda _, inputs: applied.append(inputs[0].shape))
    for _ in islice(generate(network, head, state, lambda logits: logits.argmax(-1)), 6):
        pass
    # The last token is not read until the next one is asked for.
    assert applied == [(1, C)] * 5


@pytest.mark.parametrize("num_read", [1, 100])
def test_the_state_does_not_grow_and_holds_on_to_nothing(
    network: AnyNetwork, head: TokenHead, num_read: int
) -> None:
    state = read_prompt(network, head, tokens(3, num_read))
    for num_tokens in range(num_read, num_read + 6):
        if num_tokens > num_read:
            state = read_token(network, head, state, tokens(3, 5)[:, num_tokens - num_read - 1])
        parts, shapes = (
            [state.context, state.recent, state.read],
            [(3, C), (3, min(num_tokens, head.num_recent)), (3, 1, 5)],
        )
        for block, kept in zip(head.attention.blocks, state.attention, strict=True):
            num_before = min(num_tokens, block.convolution.num_earlier)
            if isinstance(block, RecurrentBlock):
                parts += [kept.memory, kept.mixed]
                shapes += [(3, 5), (3, num_before, 5)]
            else:
                parts += [*kept.key_value]
                shapes += [(3, 1, min(num_tokens, block.window - 1), 5)] * 2
            parts.append(kept.fed)
            shapes.append((3, num_before, 5))
        assert [tuple(part.shape) for part in parts] == shapes
        for part in parts:
            assert part.untyped_storage().nbytes() == part.numel() * part.element_size()
            assert not part.requires_grad
    assert isinstance(state, GenerationState)
    num_kept = min(num_read + 5, head.num_recent)
    assert torch.equal(state.recent[:, -5:], tokens(3, 5)[:, -num_kept:])


def test_a_prompt_of_no_token_is_refused(network: AnyNetwork, head: TokenHead) -> None:
    with pytest.raises(ValueError, match="no token"):
        read_prompt(network, head, tokens(1, 0))
