"""A gated recurrence: its scan is the loop, it remembers all, and goes on from where it was."""

import pytest
import torch
from torch import Tensor

from models.recurrence import UNBOUNDED, RecurrentBlock, RecurrentState, gated_scan

D = 12


def block(kernel: int = 0) -> RecurrentBlock:
    """With weights large enough for every part to have a say."""
    made = RecurrentBlock(width=D, dropout=0.0, kernel=kernel, feed_forward_factor=3)
    made = made.double().eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return made


def text(num_positions: int) -> Tensor:
    return torch.randn(2, num_positions, D, dtype=torch.float64)


@pytest.mark.parametrize("length", [1, 2, 200])
@pytest.mark.parametrize("goes_on", [False, True])
def test_the_scan_is_the_recurrence(length: int, goes_on: bool) -> None:
    """In single precision, with gates from nearly closed to nearly open."""
    gate, candidate = 4 * torch.randn(2, 3, length, 5)
    before = torch.rand(3, 5) + 0.1 if goes_on else None
    hidden = torch.zeros(3, 5) if before is None else before
    expected = []
    for t in range(length):
        share = gate[:, t].sigmoid()
        c = candidate[:, t]
        hidden = (1 - share) * hidden + share * torch.where(c >= 0, c + 0.5, c.sigmoid())
        expected.append(hidden)
    found = gated_scan(gate, candidate, before)
    torch.testing.assert_close(found, torch.stack(expected, dim=1), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("is_first", [False, True])
def test_the_scan_has_the_gradients_of_the_loop(is_first: bool) -> None:
    gate, candidate = torch.randn(2, 2, 6, 3, dtype=torch.float64)
    before = None if is_first else torch.rand(2, 3, dtype=torch.float64) + 0.1
    given = (gate.requires_grad_(), candidate.requires_grad_())
    assert torch.autograd.gradcheck(lambda *parts: gated_scan(*parts, before), given)


def test_a_memory_of_nothing_goes_on_as_none_would() -> None:
    gate, candidate = torch.randn(2, 3, 6, 5)
    found = gated_scan(gate, candidate, torch.zeros(3, 5))
    torch.testing.assert_close(found, gated_scan(gate, candidate))


def test_half_precision_keeps_the_decimals_of_a_long_text() -> None:
    gate, candidate = torch.randn(2, 1, 2000, 4).bfloat16()
    found = gated_scan(gate, candidate)
    assert found.dtype == torch.float32
    exact = gated_scan(gate.double(), candidate.double())
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kernel", [0, 2, 3])
def test_a_position_sees_all_before_it_and_nothing_after(kernel: int) -> None:
    recur, given = block(kernel), text(20).requires_grad_()
    assert recur.reach == UNBOUNDED
    for position in (0, 8, 19):
        (slope,) = torch.autograd.grad(recur(given)[0][:, position].square().sum(), given)
        seen = slope.abs().sum(dim=(0, 2)) > 0
        assert seen.tolist() == [other <= position for other in range(20)]


@pytest.mark.parametrize("kernel", [0, 1, 2, 4])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_piece_by_piece_is_in_one_piece(size: int, kernel: int) -> None:
    recur, given = block(kernel), text(21)
    whole, last = recur(given)
    pieces = []
    state: RecurrentState | None = None
    for start in range(0, 21, size):
        piece, state = recur(given[:, start : start + size], state)
        state = recur.kept(state)
        assert state.mixed.shape[1] == state.fed.shape[1] == min(start + size, max(kernel - 1, 0))
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)
    torch.testing.assert_close(state, recur.kept(last))


def test_it_starts_near_the_identity_and_drops_out_in_training_alone() -> None:
    recur = RecurrentBlock(width=64, dropout=0.5, kernel=2)
    given = torch.randn(2, 9, 64)
    assert (recur.eval()(given)[0] - given).norm() < 0.2 * given.norm()
    assert torch.equal(recur(given)[0], recur(given)[0])
    recur.train()
    assert not torch.equal(recur(given)[0], recur(given)[0])
