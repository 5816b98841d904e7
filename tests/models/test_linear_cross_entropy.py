"""Cross-entropy in parts: the same numbers and gradients as in one piece, and never all logits."""

from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import models.linear_cross_entropy
from models.linear_cross_entropy import linear_cross_entropy

V, D = 37, 5
PART = 8
"""Tokens of a part."""


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.linear_cross_entropy, "LARGEST_LOGITS", 4 * V * PART)


def inputs(num_tokens: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(num_tokens)
    shapes = ((num_tokens, D), (V, D), (V,))
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    targets = torch.randint(V, (num_tokens,), generator=generator)
    return *(tensor.to(dtype).requires_grad_() for tensor in made), targets


def full(features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(features, weight, bias), targets)


@pytest.mark.parametrize("num_tokens", [1, PART, PART + 1, 3 * PART, 3 * PART + 5])
def test_loss_and_gradients_are_those_of_one_piece(num_tokens: int) -> None:
    *leaves, targets = inputs(num_tokens)
    loss, expected = linear_cross_entropy(*leaves, targets), full(*leaves, targets)
    torch.testing.assert_close(loss, expected)
    # A loss that is scaled on, as it is when gradients are accumulated.
    gradients = torch.autograd.grad(3 * loss, leaves)
    torch.testing.assert_close(gradients, torch.autograd.grad(3 * expected, leaves))


def test_gradients_are_those_of_finite_differences() -> None:
    *leaves, targets = inputs(2 * PART + 3)
    step = 1e-5
    gradients = torch.autograd.grad(linear_cross_entropy(*leaves, targets), leaves)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        direction = torch.randn_like(leaf)
        with torch.no_grad():
            leaf += step * direction
            above = linear_cross_entropy(*leaves, targets)
            leaf -= 2 * step * direction
            below = linear_cross_entropy(*leaves, targets)
            leaf += step * direction
        slope = (above - below) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("trained", [0, 1, 2])
def test_what_is_not_trained_gets_no_gradient(trained: int) -> None:
    *leaves, targets = inputs(3 * PART)
    for index, leaf in enumerate(leaves):
        leaf.requires_grad_(index == trained)
    linear_cross_entropy(*leaves, targets).backward()
    assert [leaf.grad is not None for leaf in leaves] == [index == trained for index in range(3)]


def test_without_gradients_the_loss_is_the_same() -> None:
    arguments = inputs(3 * PART + 5)
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(*arguments), full(*arguments))


@pytest.mark.parametrize("features_dtype", [torch.float32, torch.bfloat16])
def test_parts_are_precise_under_autocast(features_dtype: torch.dtype) -> None:
    features, weight, bias, targets = inputs(3 * PART + 5, torch.float32)
    features = features.detach().to(features_dtype).requires_grad_()
    expected = full(features.float(), weight, bias, targets)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(features, weight, bias, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    leaves = (features, weight, bias)
    gradients = torch.autograd.grad(loss, leaves)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, leaves))


def peak_bytes(function: Callable[..., Tensor], num_tokens: int) -> int:
    """Bytes that a loss and its gradients hold at most, beyond the inputs."""
    *leaves, targets = inputs(num_tokens, torch.float32)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        function(*leaves, targets).backward()
    assert profiled.profiler is not None
    events = profiled.profiler.kineto_results.events()
    changes = [event.nbytes() for event in events if event.name() == "[memory]"]
    return max(accumulate(changes))


def test_memory_does_not_grow_with_tokens_times_vocabulary() -> None:
    few, many = 2 * PART, 50 * PART
    added = 4 * V * (many - few)
    grown = [
        peak_bytes(function, many) - peak_bytes(function, few)
        for function in (full, linear_cross_entropy)
    ]
    assert grown[0] > added
    # What grows is the gradient of the features, of D entries a token, and the targets.
    assert grown[1] < added / 2
