"""What a context remembers: how often a linear probe names the token that stood k places back.

    python benchmarks/context_probe.py --seeds 0
    python benchmarks/context_probe.py --losses log_det --weights 0.55 --distances 1 8 64

Phase 1 as a trial of a study trains it, for each loss and weight, and an F as it was drawn. The
probe is linear discriminant analysis in closed form (a class for every token, one covariance for
all, each class's mean drawn towards that of all as if it had one more occurrence), fitted to contexts
of --probe-samples training rows and judged on the validation rows: the share of positions at which
it names the token. k = 0 is the token that the context has read last. `most frequent` is what naming
the most frequent token always would give.

Shapes: N contexts, C = context_dim, V = vocabulary, R rows of T tokens.
"""

import dataclasses
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from benchmarks.options import parse, run
from benchmarks.phases import State, make_phase1
from config import Config, DiversityLoss, require
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule
from models.fixed_point import solve_rows

_ROWS_AT_ONCE = 16
_SHRINKAGE = 1e-2
"""Part of the mean variance that is added to the covariance's diagonal."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    losses: tuple[DiversityLoss, ...] = ("log_det", "covariance")
    """Diversity losses."""
    weights: tuple[float, ...] = (0.01, 0.1, 0.55, 0.9)
    """Values of dist-reg-weight."""
    distances: tuple[int, ...] = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
    """Values of k."""
    seeds: tuple[int, ...] = (0,)
    """Values of random-seed; means are shown."""
    probe_samples: int = 512
    """Training sequences that the probe is fitted to; Phase 1 sees the first num-samples of them."""

    def check(self) -> None:
        """Raises `InputError` where a field is out of its range."""
        require(self.probe_samples >= 1, "probe_samples", self.probe_samples, "1 or more")
        for name in ("losses", "weights", "distances", "seeds"):
            require(bool(getattr(self, name)), name, (), "one or more")
        require(min(self.distances) >= 0, "distances", min(self.distances), "0 or more")


class LinearProbe:
    """Linear discriminant analysis: `score_y = μ_y S⁻¹ x - μ_y S⁻¹ μ_y / 2 + log π_y`.

    Args:
        contexts_NC: to fit.
        classes_N: token ids.
        num_classes: V.
    """

    def __init__(self, contexts_NC: Tensor, classes_N: Tensor, num_classes: int) -> None:
        counts_V = torch.bincount(classes_N, minlength=num_classes).to(contexts_NC.dtype)
        self.mean_C = contexts_NC.mean(dim=0)
        centred_NC = contexts_NC - self.mean_C
        sums_VC = centred_NC.new_zeros(num_classes, centred_NC.shape[1])
        means_VC = sums_VC.index_add_(0, classes_N, centred_NC) / (counts_V + 1).unsqueeze(1)
        within_NC = centred_NC - means_VC[classes_N]
        covariance_CC = within_NC.T @ within_NC / len(within_NC)
        covariance_CC.diagonal().add_(_SHRINKAGE * covariance_CC.diagonal().mean())
        factor_CC = torch.linalg.cholesky(covariance_CC)
        self.weight_CV = torch.cholesky_solve(means_VC.T, factor_CC)
        self.bias_V = ((counts_V + 1) / (len(classes_N) + num_classes)).log()
        self.bias_V -= (means_VC.T * self.weight_CV).sum(dim=0) / 2

    def predict(self, contexts_NC: Tensor) -> Tensor:
        """Contexts (N, C) to the most likely class of each, (N,)."""
        return torch.addmm(self.bias_V, contexts_NC - self.mean_C, self.weight_CV).argmax(dim=-1)


def accuracies(
    train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], distances: tuple[int, ...], num: int
) -> Iterator[float]:
    """Share of the unseen positions whose token k places back the probe names, for each k.

    Args:
        train: tokens (R, T) and contexts (R, T, C) to fit.
        val: the same, to judge.
        distances: values of k, below T.
        num: V.
    """
    for distance in distances:
        (fit_N, fit_NC), (seen_N, seen_NC) = (
            (
                tokens_RT[:, : tokens_RT.shape[1] - distance].flatten(),
                contexts_RTC[:, distance:].flatten(0, 1),
            )
            for tokens_RT, contexts_RTC in (train, val)
        )
        named_N = LinearProbe(fit_NC, fit_N, num).predict(seen_NC)
        yield float((named_N == seen_N).float().mean())


def most_frequent(val_RT: Tensor, distances: tuple[int, ...], counts_V: Tensor) -> list[float]:
    """What naming the most frequent token always gives."""
    return [
        float((val_RT[:, : val_RT.shape[1] - k] == counts_V.argmax()).float().mean())
        for k in distances
    ]


@torch.no_grad()
def contexts_of(module: FixedPointModule, tokens_RT: Tensor) -> Tensor:
    """Exact contexts, (R, T, C)."""
    network = module.network
    parts = torch.split(tokens_RT, _ROWS_AT_ONCE)
    return torch.cat([solve_rows(network, network.embed(part)) for part in parts])


def main() -> int:
    options, config = parse(Options, __doc__)
    options.check()
    furthest = max(options.distances)
    length = config.max_seq_length
    require(furthest < length, "distances", furthest, f"below max-seq-length, {length}")
    data = TokenDataModule(config)
    data.setup()
    more = TokenDataModule(dataclasses.replace(config, num_samples=options.probe_samples))
    more.setup()
    train_RT, val_RT = more.train_rows.tokens, data.val_rows.tokens
    print(f"{data.describe()}; probe fitted to {train_RT.numel():,} tokens")
    print("loss                 weight " + " ".join(f"k={k:<4}" for k in options.distances))

    def line(loss: str, weight: str, shares: list[float]) -> None:
        print(f"{loss:20} {weight:>6} " + " ".join(f"{share:6.3f}" for share in shares), flush=True)

    def measure(changed: Config, state: State) -> list[float]:
        of_seeds = []
        for seed in options.seeds:
            module, *_ = make_phase1(dataclasses.replace(changed, random_seed=seed), data, state)
            pairs = [(tokens, contexts_of(module, tokens)) for tokens in (train_RT, val_RT)]
            of_seeds.append(
                list(accuracies(pairs[0], pairs[1], options.distances, data.vocab_size))
            )
        return [statistics.mean(values) for values in zip(*of_seeds, strict=True)]

    line("most frequent", "", most_frequent(val_RT, options.distances, more.token_counts()))
    line("untrained", "", measure(config, "untrained"))
    for loss in options.losses:
        for weight in options.weights:
            changed = dataclasses.replace(config, diversity_loss=loss, dist_reg_weight=weight)
            line(loss, f"{weight:g}", measure(changed, "trained"))
    return 0


if __name__ == "__main__":
    run(main)
