"""What a token leaves of the distance between two contexts."""

import pytest
import torch
from torch import Tensor

from models.contraction import contraction, lasting_disturbance
from models.sweeps import sweep


class Scaled:
    """F(c, e) = factor c + e."""

    context_dim = 6

    def __init__(self, factor: Tensor) -> None:
        self.factor = factor

    def __call__(self, contexts: Tensor, embeddings: Tensor, /) -> Tensor:
        return self.factor * contexts + embeddings


def measured(factor: Tensor, contexts: Tensor, embeddings: Tensor, every: int) -> Tensor:
    network = Scaled(factor)
    swept = sweep(network, contexts, embeddings)
    return contraction(network, contexts, embeddings, swept, every=every)


@pytest.mark.parametrize("num_rows", [1, 3])
@pytest.mark.parametrize("factor", [0.0, 0.5, 1.2])
def test_of_a_linear_map_it_is_the_square_of_its_factor(factor: float, num_rows: int) -> None:
    contexts, embeddings = torch.randn(2, num_rows, 8, 6)
    for every in (1, 2, 3):
        left = measured(torch.tensor(factor), contexts, embeddings, every)
        assert float(left) == pytest.approx(factor**2, rel=1e-4, abs=1e-12)


def test_its_gradient_pulls_the_factor_down() -> None:
    factor = torch.tensor(0.5, requires_grad=True)
    contexts, embeddings = torch.randn(2, 2, 8, 6)
    measured(factor, contexts, embeddings, 2).backward()  # type: ignore[no-untyped-call]
    assert factor.grad is not None
    assert float(factor.grad) == pytest.approx(1.0, rel=1e-4)


def test_equal_contexts_leave_nothing_and_no_nan() -> None:
    factor = torch.tensor(0.5, requires_grad=True)
    left = measured(factor, torch.zeros(2, 4, 6), torch.randn(2, 4, 6), 1)
    (slope,) = torch.autograd.grad(left, factor)
    assert left == 0
    assert slope == 0


@pytest.mark.parametrize("rounding", [1e-7, 1e-5, 4e-3])
@pytest.mark.parametrize("distance", [0.0, 1e-6, 1e-3])
def test_rounding_of_equal_contexts_is_no_contraction(rounding: float, distance: float) -> None:
    """Products of another shape round differently, and the first sweep's contexts are all equal."""
    factor = torch.tensor(0.5, requires_grad=True)
    contexts, embeddings = distance * torch.randn(2, 4, 6), torch.randn(2, 4, 6)
    swept = sweep(Scaled(factor), contexts, embeddings)
    left = contraction(
        Scaled(factor), contexts, embeddings, swept * (1 + rounding * torch.randn_like(swept)),
        every=1,
    )  # fmt: skip
    (slope,) = torch.autograd.grad(lasting_disturbance(left), factor)
    assert left < 1
    assert slope.abs() < 10


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_what_lasts_is_the_sum_of_the_powers(share: float) -> None:
    powers = sum(share**k for k in range(1, 2000))
    lasting = lasting_disturbance(torch.tensor(share, dtype=torch.float64))
    assert float(lasting) == pytest.approx(powers, rel=1e-9)


def test_without_contraction_it_is_finite_and_grows_on() -> None:
    shares = torch.tensor([0.94, 0.95, 0.96, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    lasting = lasting_disturbance(shares)
    (slopes,) = torch.autograd.grad(lasting.sum(), shares)
    assert (lasting.diff() > 0).all()
    torch.testing.assert_close(slopes[2:], torch.full_like(slopes[2:], 400.0))


@pytest.mark.parametrize("num_positions", [2, 3, 15])
def test_a_text_shorter_than_the_distance_between_positions_is_measured(num_positions: int) -> None:
    contexts, embeddings = torch.randn(2, 2, num_positions, 6)
    left = measured(torch.tensor(0.5), contexts, embeddings, 16)
    assert float(left) == pytest.approx(0.25, rel=1e-4)
