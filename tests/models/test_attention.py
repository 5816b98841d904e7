"""Attention over a window: causal, blind beyond its reach, the same piece by piece as in one."""

import pytest
import torch
from torch import Tensor

from models.attention import AttentionBlock, AttentionState, KeyValue
from models.block import BlockStack

D = 12


def block(
    window: int, width: int = D, kernel: int = 0, query_key_norm: bool = False
) -> AttentionBlock:
    """With weights large enough for every part to have a say."""
    made = AttentionBlock(
        width=width, window=window, dropout=0.0, kernel=kernel, query_key_norm=query_key_norm
    )
    made = made.double().eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return made


def stack(num_layers: int, window: int, kernel: int = 0) -> BlockStack:
    return BlockStack(block(window, kernel=kernel, query_key_norm=True) for _ in range(num_layers))


def text(num_positions: int, width: int = D) -> Tensor:
    return torch.randn(2, num_positions, width, dtype=torch.float64)


def first_of(state: AttentionState, num_positions: int) -> AttentionState:
    key, value = (part[:, :, :num_positions] for part in state.key_value)
    return AttentionState(KeyValue(key, value), state.fed[:, :num_positions])


@pytest.mark.parametrize("kernel", [0, 1, 2, 4])
@pytest.mark.parametrize("window", [1, 3, 9, 50])
def test_a_position_sees_its_window_and_no_more(window: int, kernel: int) -> None:
    attend, given = block(window, kernel=kernel), text(20).requires_grad_()
    assert attend.reach == window - 1 + max(kernel - 1, 0)
    for position in (0, 8, 19):
        (slope,) = torch.autograd.grad(attend(given)[0][:, position].square().sum(), given)
        seen = slope.abs().sum(dim=(0, 2)) > 0
        expected = [position - attend.reach <= other <= position for other in range(20)]
        assert seen.tolist() == expected


@pytest.mark.parametrize("kernel", [0, 1, 2, 4])
@pytest.mark.parametrize("window", [1, 3, 9, 50])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_piece_by_piece_is_in_one_piece(window: int, size: int, kernel: int) -> None:
    attend, given = block(window, kernel=kernel), text(21)
    whole, seen = attend(given)
    pieces = [
        attend(given[:, start : start + size], first_of(seen, start), start)[0]
        for start in range(0, 21, size)
    ]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)
    # Of what stands before, what is kept is all that is needed, and is given back with what is new.
    kept = attend.kept(first_of(seen, 20))
    assert kept.key_value.key.shape[2] == min(20, window - 1)
    assert kept.fed.shape[1] == max(kernel - 1, 0)
    last, seen_last = attend(given[:, 20:], kept, 20)
    torch.testing.assert_close(last, whole[:, 20:])
    torch.testing.assert_close(seen_last.key_value, seen.key_value.last(window))
    torch.testing.assert_close(seen_last.fed, seen.fed[:, 21 - max(kernel, 1) :])


def test_where_a_position_stands_is_known_by_distance_alone() -> None:
    attend, given = block(4), text(10)
    moved = torch.cat([text(7), given], dim=1)
    torch.testing.assert_close(attend(moved)[0][:, 10:], attend(given)[0][:, 3:])
    torch.testing.assert_close(attend(given, None, 10**8)[0], attend(given)[0])
    swapped = given[:, [0, 1, 2, 3, 4, 5, 7, 6, 8, 9]]
    assert (attend(swapped)[0][:, 9] - attend(given)[0][:, 9]).abs().max() > 1e-3


@pytest.mark.parametrize(("width", "num_heads"), [(12, 4), (6, 2), (5, 1), (160, 4)])
def test_any_width_has_heads(width: int, num_heads: int) -> None:
    attend = block(3, width)
    assert attend.num_heads == num_heads
    features, seen = attend(text(4, width))
    assert features.shape == (2, 4, width)
    key, value = seen.key_value
    assert key.shape == value.shape == (2, num_heads, 4, width // num_heads)


def test_it_starts_near_the_identity_and_drops_out_in_training_alone() -> None:
    attend = AttentionBlock(width=64, window=8, dropout=0.5, kernel=2)
    given = torch.randn(2, 9, 64)
    assert (attend.eval()(given)[0] - given).norm() < 0.2 * given.norm()
    assert torch.equal(attend(given)[0], attend(given)[0])
    attend.train()
    assert not torch.equal(attend(given)[0], attend(given)[0])


@pytest.mark.parametrize(
    ("num_layers", "window", "kernel"),
    [(0, 0, 3), (1, 4, 0), (3, 1, 0), (2, 4, 0), (3, 5, 0), (2, 4, 3), (3, 1, 2)],
)
def test_blocks_upon_each_other_reach_further_and_no_more(
    num_layers: int, window: int, kernel: int
) -> None:
    attend, given = stack(num_layers, window, kernel), text(20).requires_grad_()
    attended = attend(given)
    (slope,) = torch.autograd.grad(attended.output[:, 19].square().sum(), given)
    seen = slope.abs().sum(dim=(0, 2)) > 0
    assert seen.tolist() == [position >= 19 - attend.reach for position in range(20)]
    assert len(attended.states) == num_layers
    if num_layers == 0:
        assert attended.output is given


@pytest.mark.parametrize("kernel", [0, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_stack_goes_on_from_what_its_blocks_have_read(size: int, kernel: int) -> None:
    attend, given = stack(3, 4, kernel), text(21)
    whole = attend(given)
    for start in range(size, 21, size):
        kept = attend.kept([first_of(state, start) for state in whole.states])
        found = attend(given[:, start : start + size], kept, start)
        torch.testing.assert_close(found.output, whole.output[:, start : start + size])


@pytest.mark.parametrize("query_key_norm", [False, True])
def test_attention_is_its_formula(query_key_norm: bool) -> None:
    """Softmax of scaled products over a window of 3, head by head, at distances that turn the keys."""
    attend, given = block(3, width=8, query_key_norm=query_key_norm), text(5, 8)
    torch.nn.init.zeros_(attend.outer.weight)
    torch.nn.init.zeros_(attend.outer.bias)
    normed = attend.attention_norm(given)
    query, key, value = (
        part.unflatten(-1, (4, 2))
        for part in (attend.query(normed), *attend.key_value(normed).chunk(2, dim=-1))
    )
    if query_key_norm:
        query, key = (
            part / part.square().mean(dim=-1, keepdim=True).sqrt() for part in (query, key)
        )
    # Two entries a head are turned by one radian a position.
    as_complex = [torch.view_as_complex(part.contiguous()) for part in (query, key)]
    for position in range(5):
        seen = range(max(position - 2, 0), position + 1)
        scores = torch.stack(
            [
                (
                    as_complex[0][:, position]
                    * (
                        as_complex[1][:, other]
                        * torch.exp(torch.tensor(1j * (other - position), dtype=torch.complex128))
                    ).conj()
                ).real
                for other in seen
            ]
        )
        shares = (scores / 2**0.5).softmax(dim=0)
        read = sum(
            share.unsqueeze(-1) * value[:, other] for share, other in zip(shares, seen, strict=True)
        )
        expected = given[:, position] + attend.projection(read.flatten(1))
        torch.testing.assert_close(attend(given)[0][:, position], expected)


def test_weights_of_a_single_block_are_those_of_a_stack_of_one() -> None:
    before, attend, given = block(4, query_key_norm=True), stack(1, 4), text(9)
    attend.load_state_dict(before.state_dict())
    assert torch.equal(attend(given).output, before(given)[0])
    with pytest.raises(RuntimeError, match=r"blocks\.1\.query"):
        stack(2, 4).load_state_dict(before.state_dict())
