"""The distribution that tokens are drawn from: by definition, and on random logits."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from models.sampling import choose, token_probabilities

PROBABILITIES = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2], dtype=torch.float64)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (1e-9, [1]),
        (0.39, [1]),
        (0.41, [1, 3]),
        (0.64, [1, 3]),
        (0.66, [1, 3, 4]),
        (0.94, [0, 1, 3, 4]),
        (0.96, [0, 1, 2, 3, 4]),
        (1.0, [0, 1, 2, 3, 4]),
    ],
)
def test_top_p_keeps_the_smallest_set(top_p: float, kept: list[int]) -> None:
    drawn = token_probabilities(PROBABILITIES.log(), top_p=top_p)
    assert drawn.nonzero().flatten().tolist() == kept
    torch.testing.assert_close(drawn[kept], PROBABILITIES[kept] / PROBABILITIES[kept].sum())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-20, 20), min_size=1, max_size=12),
    st.floats(0.01, 1),
    st.floats(0.1, 5),
    st.none() | st.integers(1, 15),
)
def test_no_smaller_set_has_top_p(
    logits: list[float], top_p: float, temperature: float, top_k: int | None
) -> None:
    scaled = (torch.tensor(logits, dtype=torch.float64) / temperature).softmax(dim=0)
    candidates = scaled.sort(descending=True).values[: top_k or len(logits)]
    candidates = candidates / candidates.sum()
    drawn = token_probabilities(
        torch.tensor(logits), temperature=temperature, top_k=top_k, top_p=top_p
    )
    num_kept = int((drawn > 0).sum())
    assert float(drawn.sum()) == pytest.approx(1)
    assert float(candidates[:num_kept].sum()) >= top_p - 1e-6
    assert num_kept == 1 or float(candidates[: num_kept - 1].sum()) < top_p + 1e-6


def test_of_equals_exactly_as_many_as_are_needed_are_kept() -> None:
    assert (token_probabilities(torch.zeros(8), top_p=0.5) > 0).tolist() == [True] * 4 + [False] * 4
    assert (token_probabilities(torch.zeros(8), top_k=3) > 0).tolist() == [True] * 3 + [False] * 5


def test_temperature_is_an_exponent_of_the_probabilities() -> None:
    drawn = token_probabilities(PROBABILITIES.log(), temperature=0.5)
    torch.testing.assert_close(drawn, PROBABILITIES**2 / (PROBABILITIES**2).sum())


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-9])
def test_no_temperature_is_greedy(temperature: float) -> None:
    logits = torch.tensor([[5.0, 900.0, 899.0], [7.0, 3.0, -math.inf]])
    drawn = token_probabilities(logits, temperature=temperature, top_p=0.9)
    assert drawn.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_draws_have_the_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = PROBABILITIES.log().expand(20_000, -1)
    drawn = choose(logits, top_k=3, generator=generator)
    shares = torch.bincount(drawn, minlength=5) / len(drawn)
    expected = token_probabilities(PROBABILITIES.log(), top_k=3).float()
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.02)


def test_same_seed_same_draws() -> None:
    logits = torch.zeros(64, 5)
    drawn = [choose(logits, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    "wrong", [{"temperature": -0.1}, {"temperature": math.nan}, {"top_k": 0}, {"top_p": 0.0},
              {"top_p": 1.1}],
)  # fmt: skip
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        token_probabilities(torch.zeros(3), **wrong)
