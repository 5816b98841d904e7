"""A short convolution: what it mixes, by hand; where a text starts; that it starts as nothing."""

import pytest
import torch

from models.short_convolution import ShortConvolution

D = 3


def convolution(kernel: int) -> ShortConvolution:
    made = ShortConvolution(width=D, kernel=kernel).double()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(3))
    return made


@pytest.mark.parametrize("kernel", [1, 2, 4])
def test_it_is_its_formula(kernel: int) -> None:
    mix = convolution(kernel)
    given = torch.randn(2, 6, D, dtype=torch.float64)
    assert mix.weight is not None
    for position in range(6):
        expected = given[:, position].clone()
        for back in range(min(kernel, position + 1)):
            expected += mix.weight[back] * given[:, position - back]
        torch.testing.assert_close(mix(given)[:, position], expected)


@pytest.mark.parametrize("kernel", [0, 1, 2, 4])
@pytest.mark.parametrize("num_earlier", [0, 1, 3, 5])
def test_it_goes_on_from_what_stands_before(kernel: int, num_earlier: int) -> None:
    mix = convolution(kernel)
    given = torch.randn(2, 7, D, dtype=torch.float64)
    later = mix(given[:, num_earlier:], given[:, :num_earlier])
    torch.testing.assert_close(later, mix(given)[:, num_earlier:])
    last = given[:, max(num_earlier - mix.num_earlier, 0) : num_earlier]
    assert torch.equal(mix(given[:, num_earlier:], last), later)


def test_it_starts_as_nothing_and_without_a_kernel_stays_it() -> None:
    given = torch.randn(2, 5, D)
    assert torch.equal(ShortConvolution(width=D, kernel=3)(given), given)
    without = ShortConvolution(width=D, kernel=0)
    assert without(given) is given
    assert not without.state_dict()
