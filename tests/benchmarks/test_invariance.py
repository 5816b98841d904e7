"""The weight under other momenta and batches, in sizes that mean nothing."""

import pytest

from benchmarks import invariance
from config import Config
from tests.commands import CHAT, TINY, Call


def test_every_momentum_and_batch_has_its_line(tiny_config: Config, call: Call) -> None:
    ran = call(
        invariance.main, *TINY, "--corpus", str(CHAT), "--cache-dir", tiny_config.cache_dir,
        "--phase2-epochs", "2", "--phase2-learning-rate", "0.1", "--losses", "log_det",
        "--weights", "0.3", "--momenta", "0", "0.9", "--batches", "2", "4", "--num-steps", "8",
        "--seeds", "0", "1",
    )  # fmt: skip
    rows = [line.split() for line in ran.stdout.splitlines()[1:]]
    expected = [
        ["log_det", "0.3", momentum, tokens]
        for momentum in ("0.0", "0.9")
        for tokens in ("64", "128")
    ]
    assert [row[:4] for row in rows] == expected
    assert len({tuple(row[4:7]) for row in rows}) == len(rows), "trainings of their own"
    for row in rows:
        _, rank, perplexity, *each = map(float, row[4:])
        assert rank == pytest.approx((each[0] + each[2]) / 2, abs=1e-4)
        assert perplexity == pytest.approx((each[1] + each[3]) / 2, abs=0.01)


def test_an_equal_number_of_optimiser_steps_is_what_batches_have_in_common(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Config] = []
    trained = invariance.train

    def watched(config: Config) -> object:
        seen.append(config)
        return trained(config)

    monkeypatch.setattr(invariance, "train", watched)
    for batch_size in (2, 4):
        invariance.measure(tiny_config, batch_size, num_steps=8)
    assert [one.phase1_max_epochs * 8 // one.batch_size for one in seen] == [8, 8]
