"""What the probe of contexts names, and that the tables of it and of unfrozen contexts come."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import context_probe, unfrozen
from benchmarks.context_probe import LinearProbe, accuracies
from config import Config, InputError
from datamodules.token_datamodule import TokenDataModule

CHAT = Path(__file__).parents[1] / "datamodules" / "data" / "ultrachat_sample.jsonl"
SIZES = """--vocab-size 300 --num-samples 8 --num-val-samples 4 --max-seq-length 32 --context-dim 16
    --embed-dim 16 --head-embed-dim 8 --head-hidden-dim 8 --phase1-max-epochs 2 --phase2-epochs 1
    --accelerator cpu""".split()


def test_the_probe_is_the_best_classifier_of_gaussian_classes() -> None:
    """Bayes' own, for classes of one covariance that are of different frequency."""
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]])
    mixing = torch.tensor([[1.0, 0.0], [1.5, 0.4]])
    frequencies = torch.tensor([0.9, 0.1, 0.0])  # the last class is never seen

    def draw(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        classes = torch.multinomial(frequencies, number, replacement=True, generator=generator)
        noise = torch.randn(number, 2, generator=generator) @ mixing.T
        return means[classes] + noise, classes

    probe = LinearProbe(*draw(20_000), num_classes=3)
    contexts, classes = draw(20_000)
    normal = torch.distributions.MultivariateNormal
    densities = [normal(mean, mixing @ mixing.T).log_prob(contexts) for mean in means[:2]]
    best = (torch.stack(densities, dim=1) + frequencies[:2].log()).argmax(dim=1)
    named = probe.predict(contexts)
    assert (named == best).float().mean() > 0.99
    assert (named == classes).float().mean() > (classes == 0).float().mean() + 0.02


def test_the_probe_finds_what_a_context_holds_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, (40, 20), generator=generator)
    shifted = torch.nn.functional.one_hot(tokens.roll(2, dims=1), 5).float()
    contexts = shifted + 0.1 * torch.randn(shifted.shape, generator=generator)
    train, val = (tokens[:30], contexts[:30]), (tokens[30:], contexts[30:])
    before, at, after = accuracies(train, val, (1, 2, 3), num=5)
    assert at == 1
    assert max(before, after) < 0.4


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_data: TokenDataModule,
) -> Callable[..., list[str]]:
    cache = ["--cache-dir", tiny_data.config.cache_dir, "--corpus", str(CHAT)]

    def call(main: Callable[[], int], *arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["script", *SIZES, *cache, *arguments])
        assert main() == 0
        return capsys.readouterr().out.splitlines()

    return call


def test_the_table_of_the_probe(run: Callable[..., list[str]]) -> None:
    lines = run(
        context_probe.main, "--losses", "log_det", "--weights", "0.5", "--distances", "0", "3",
        "--probe-samples", "12",
    )  # fmt: skip
    assert [line.split()[0] for line in lines[-3:]] == ["most", "untrained", "log_det"]
    shares = [float(word) for line in lines[-2:] for word in line.split()[-2:]]
    assert all(0 <= share <= 1 for share in shares)
    assert shares[0] > shares[1]  # the last token is in the context more than one before it


def test_the_table_of_unfrozen_contexts(run: Callable[..., list[str]]) -> None:
    gradients = ["frozen", "sweeps-2", "memory-1"]
    learning = "--phase2-epochs 8 --phase2-learning-rate 0.1 --context-scale 3".split()
    lines = run(unfrozen.main, *learning, "--gradients", *gradients)
    rows = [line.split() for line in lines[-6:]]
    assert [row[:2] for row in rows] == [
        [gradient, phase1] for phase1 in ("yes", "no") for gradient in gradients
    ]
    assert len({row[2] for row in rows}) >= 4  # trainings of their own; hundredths may coincide


@pytest.mark.parametrize("gradient", ["sweep-1", "memory-0", "sweeps", "memory-x"])
def test_a_gradient_that_does_not_exist_is_told(gradient: str) -> None:
    with pytest.raises(InputError, match="must be frozen, sweeps-k or memory-k"):
        unfrozen.configured(Config(), gradient)
