"""Memory and time of the cross-entropy of a large vocabulary, in one piece and in parts.

    python benchmarks/linear_cross_entropy.py [--vocab-size 50257] [--dims 128 768]
        [--num-tokens 2048 16384] [--device cpu]

Each line is a process of its own: forward and backward of the loss alone, from features (N, D).
Peak memory is what is resident above what was before, or allocated on a GPU; time is the lowest of
the repetitions: the processor's own, so that other work on the machine counts less, and wall time
on a GPU.
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

from benchmarks.devices import device_name, now, open_device, peak_since_start, start_peak
from config import InputError
from models.linear_cross_entropy import LARGEST_LOGITS, linear_cross_entropy

_KIB, _MIB = 2**10, 2**20


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
    device = open_device(options.device)
    print(
        f"torch {torch.__version__}, {device_name(device)}, {torch.get_num_threads()} threads, "
        f"V = {options.vocab_size}, parts of {LARGEST_LOGITS // 2**20} MiB of logits"
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
    """Measures in this process, whose peak must not have been higher before."""
    device = torch.device(device_text)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(num_tokens, dim, generator=generator).to(device).requires_grad_()
    weight = 0.02 * torch.randn(vocab_size, dim, generator=generator)
    weight = weight.to(device).requires_grad_()
    bias = torch.zeros(vocab_size, requires_grad=True, device=device)
    targets = torch.randint(vocab_size, (num_tokens,), generator=generator).to(device)
    before = _start_peak(device)
    seconds = []
    for _ in range(repetitions):
        features.grad = weight.grad = bias.grad = None
        start = _seconds(device)
        loss = WAYS[way](features, weight, bias, targets)
        torch.autograd.backward(loss)
        seconds.append(_seconds(device) - start)
    assert weight.grad is not None
    peak_mib = (_peak(device) - before) / _MIB
    return Measured(peak_mib, min(seconds), loss.item(), weight.grad.norm().item())


def _in_a_process(*arguments: str | int) -> Measured:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def _seconds(device: torch.device) -> float:
    return time.process_time() if device.type == "cpu" else now(device)


def _start_peak(device: torch.device) -> int:
    """Bytes that are taken now."""
    return start_peak(device) if device.type == "cuda" else _peak(device)


def _peak(device: torch.device) -> int:
    """Bytes that were taken at most, of a GPU's memory or of the computer's."""
    on_device = peak_since_start(device)
    if on_device is not None:
        return on_device
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--vocab-size", type=int, default=50_257)
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 768])
    parser.add_argument("--num-tokens", type=int, nargs="+", default=[2048, 16_384])
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="as torch names it")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
