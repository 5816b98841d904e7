"""The recurrence by matrix products against the recurrence position by position."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.linear_recurrence import decayed_sum, rotated_decayed_sum


@settings(max_examples=25, deadline=None)
@given(
    num_rows=st.integers(1, 3),
    num_positions=st.one_of(st.integers(1, 20), st.integers(120, 300)),
    width=st.integers(1, 5),
    smallest=st.sampled_from([1e-6, 0.3, 0.999]),
    seed=st.integers(0, 1000),
)
def test_both_are_the_recurrence(
    num_rows: int, num_positions: int, width: int, smallest: float, seed: int
) -> None:
    torch.manual_seed(seed)
    keep = smallest + (1 - smallest) * torch.rand(num_rows, num_positions, dtype=torch.float64)
    inputs = torch.randn(num_rows, num_positions, width, dtype=torch.float64)
    plain = rotated = torch.zeros(num_rows, width, dtype=torch.float64)
    expected, expected_rotated = [], []
    for position in range(num_positions):
        decay = keep[:, position].unsqueeze(-1)
        plain = decay * plain + inputs[:, position]
        rotated = decay * rotated.roll(1, dims=-1) + inputs[:, position]
        expected.append(plain)
        expected_rotated.append(rotated)
    torch.testing.assert_close(decayed_sum(keep, inputs), torch.stack(expected, dim=1))
    torch.testing.assert_close(
        rotated_decayed_sum(keep, inputs), torch.stack(expected_rotated, dim=1)
    )


def test_chunks_of_chunks_are_joined() -> None:
    """Longer than a chunk of chunks, so that the join is joined itself."""
    keep = torch.full((1, 17_000), 0.9999, dtype=torch.float64)
    summed = decayed_sum(keep, torch.ones(1, 17_000, 1, dtype=torch.float64))
    position = torch.arange(1, 17_001, dtype=torch.float64)
    torch.testing.assert_close(summed[0, :, 0], (1 - 0.9999**position) / (1 - 0.9999))


def test_tiny_and_whole_decays_stay_finite() -> None:
    keep = torch.tensor([[1e-30, 1.0] * 100])
    summed = decayed_sum(keep, torch.ones(1, 200, 3))
    torch.testing.assert_close(summed[0, :, 0], torch.tensor([1.0, 2.0] * 100))
