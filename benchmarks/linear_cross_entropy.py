"""Memory and time of the cross-entropy of a large vocabulary, in one piece and in parts.

    python benchmarks/linear_cross_entropy.py [--vocab-size 50257] [--dims 128 768]
        [--num-tokens 2048 16384] [--device cpu]

Each line is a process of its own: forward and backward of the loss alone, from features (N, D).
Peak memory is what the computation took at most above all that was there before it, features and
weights among it: of what is resident of the process, or of what is allocated on a GPU. Time is the
lowest of the repetitions: the processor's own, so that other work on the machine counts less, and
wall time on a GPU.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.devices import MIB, device_name, now, open_device, peak_above, start_peak
from benchmarks.options import parse_alone, run
from config import require
from models.linear_cross_entropy import LARGEST_LOGITS, linear_cross_entropy


@dataclass(frozen=True)
class Options:
    """What to measure."""

    vocab_size: int = 50_257
    """V."""
    dims: tuple[int, ...] = (128, 768)
    """Values of D."""
    num_tokens: tuple[int, ...] = (2048, 16_384)
    """Values of N."""
    repetitions: int = 2
    """Forward and backward passes of each line."""
    device: str = "cpu"
    """Where to compute, as torch names it."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "repetitions"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("dims", "num_tokens"):
            values = getattr(self, name)
            require(min(values, default=1) >= 1, name, values, "numbers from 1")


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
    options = parse_alone(Options, __doc__)
    device = open_device(options.device)
    print(
        f"torch {torch.__version__}, {device_name(device)}, {torch.get_num_threads()} threads, "
        f"V = {options.vocab_size}, parts of {LARGEST_LOGITS // MIB} MiB of logits"
    )
    print(f"{'D':>5}{'tokens':>8}  {'way':6}{'peak MiB':>10}{'s':>8}{'loss':>12}{'|dW|':>12}")
    for dim in options.dims:
        for num_tokens in options.num_tokens:
            for way in WAYS:
                found = _in_a_process(
                    way, options.vocab_size, dim, num_tokens, options.repetitions, options.device
                )
                print(
                    f"{dim:5}{num_tokens:8,}  {way:6}{found.peak_mib:10,.0f}{found.seconds:8.2f}"
                    f"{found.loss:12.6f}{found.gradient_norm:12.6f}",
                    flush=True,
                )


def measure(
    way: str, vocab_size: int, dim: int, num_tokens: int, repetitions: int, device_text: str
) -> Measured:
    """Measures in this process."""
    device = torch.device(device_text)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(num_tokens, dim, generator=generator).to(device).requires_grad_()
    weight = torch.randn(vocab_size, dim, generator=generator).mul_(0.02)
    weight = weight.to(device).requires_grad_()
    bias = torch.zeros(vocab_size, requires_grad=True, device=device)
    targets = torch.randint(vocab_size, (num_tokens,), generator=generator).to(device)
    start = start_peak(device)
    seconds = []
    for _ in range(repetitions):
        features.grad = weight.grad = bias.grad = None
        began = _seconds(device)
        loss = WAYS[way](features, weight, bias, targets)
        torch.autograd.backward(loss)
        seconds.append(_seconds(device) - began)
    assert weight.grad is not None
    peak_mib = peak_above(start, device) / MIB
    return Measured(peak_mib, min(seconds), loss.item(), weight.grad.norm().item())


def _in_a_process(*arguments: str | int) -> Measured:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def _seconds(device: torch.device) -> float:
    return time.process_time() if device.type == "cpu" else now(device)


if __name__ == "__main__":
    run(main)
