"""Memory and time of the cross-entropy of a large vocabulary, in one piece and in parts.

    python benchmarks/linear_cross_entropy.py [--vocab-size 50257] [--dims 128 768]
        [--num-tokens 2048 16384]

Each line is a process of its own: forward and backward of the loss alone, from features (N, D).
Peak memory is what is resident above what was before; time is the processor's, the lowest of the
repetitions, so that other work on the machine counts less.
"""

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models.linear_cross_entropy import LARGEST_LOGITS, linear_cross_entropy

_KIB_A_MIB = 1024


class Measured(NamedTuple):
    """gradient_norm: of the weights, to see that both compute the same."""

    peak_mib: float
    seconds: float
    loss: float
    gradient_norm: float


def full(features_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    """All logits at once."""
    return F.cross_entropy(F.linear(features_ND, weight_VD, bias_V), targets_N)


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "full": full,
    "parts": linear_cross_entropy,
}


def main() -> None:
    options = _options()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, V = {options.vocab_size}, "
        f"parts of {LARGEST_LOGITS // 2**20} MiB of logits"
    )
    print(f"{'D':>5}{'tokens':>8}  {'way':6}{'peak MiB':>10}{'s':>8}{'loss':>12}{'|dW|':>12}")
    for dim in options.dims:
        for num_tokens in options.num_tokens:
            for way in WAYS:
                found = _in_a_process(way, options.vocab_size, dim, num_tokens, options.repetitions)
                print(
                    f"{dim:5}{num_tokens:8,}  {way:6}{found.peak_mib:10,.0f}{found.seconds:8.2f}"
                    f"{found.loss:12.6f}{found.gradient_norm:12.6f}",
                    flush=True,
                )


def measure(way: str, vocab_size: int, dim: int, num_tokens: int, repetitions: int) -> Measured:
    """Measures in this process, whose peak must not have been higher before."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(num_tokens, dim, generator=generator).requires_grad_()
    weight = (0.02 * torch.randn(vocab_size, dim, generator=generator)).requires_grad_()
    bias = torch.zeros(vocab_size, requires_grad=True)
    targets = torch.randint(vocab_size, (num_tokens,), generator=generator)
    before = _peak_kib()
    seconds = []
    for _ in range(repetitions):
        features.grad = weight.grad = bias.grad = None
        start = time.process_time()
        loss = WAYS[way](features, weight, bias, targets)
        torch.autograd.backward(loss)
        seconds.append(time.process_time() - start)
    assert weight.grad is not None
    peak_mib = (_peak_kib() - before) / _KIB_A_MIB
    return Measured(peak_mib, min(seconds), loss.item(), weight.grad.norm().item())


def _in_a_process(*arguments: str | int) -> Measured:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--vocab-size", type=int, default=50_257)
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 768])
    parser.add_argument("--num-tokens", type=int, nargs="+", default=[2048, 16_384])
    parser.add_argument("--repetitions", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
