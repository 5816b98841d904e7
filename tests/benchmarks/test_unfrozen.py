"""How far back gradients flow, in sizes that mean nothing, and how a gradient is named."""

import pytest

from benchmarks import unfrozen
from config import Config, InputError
from tests.commands import CHAT, TINY, Call


def test_every_gradient_has_its_line_with_phase_1_and_without(
    tiny_config: Config, call: Call
) -> None:
    ran = call(
        unfrozen.main, *TINY, "--corpus", str(CHAT), "--cache-dir", tiny_config.cache_dir,
        "--phase1-max-epochs", "2", "--phase2-epochs", "2", "--phase2-learning-rate", "0.1",
        "--gradients", "frozen", "memory-1", "sweeps-2", "--seeds", "0", "1",
    )  # fmt: skip
    rows = [line.split() for line in ran.stdout.splitlines()[3:]]
    gradients = ["frozen", "memory-1", "sweeps-2"]
    expected = [[gradient, state] for state in ("yes", "no") for gradient in gradients]
    assert [row[:2] for row in rows] == expected
    assert len({row[2] for row in rows}) == len(rows), "trainings of their own"
    for row in rows:
        mean = (float(row[-2]) + float(row[-1])) / 2
        assert float(row[2]) == pytest.approx(mean, abs=0.01)


def test_a_gradient_is_what_its_name_says() -> None:
    assert unfrozen.configured(Config(freeze_context=False), "frozen").freeze_context
    carried = unfrozen.configured(Config(), "memory-3")
    assert (carried.freeze_context, carried.phase2_gradient) == (False, "memory")
    assert carried.phase2_num_sweeps == 3


@pytest.mark.parametrize("name", ["sweeps-0", "sweeps", "memory-x", "jacobian-1"])
def test_a_name_of_no_gradient_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"--gradients has '{name}'; it must be"):
        unfrozen.configured(Config(), name)
