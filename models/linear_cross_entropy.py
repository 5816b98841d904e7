"""Cross-entropy of a linear layer's outputs that never holds many logits.

Shapes: N tokens, D features, V = vocabulary; B rows of T tokens.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LARGEST_LOGITS = 128 * 2**20
"""Bytes of single-precision logits that are held at once: 8,192 tokens of V = 4,096, an evaluated
batch of the default size, or 667 of V = 50,257. A half or a quarter of it is as quick."""

_BYTES = 4
_TORCH_HAS_IT = hasattr(F, "linear_cross_entropy")
"""From PyTorch 2.13 on; before, parts are computed again on the way back."""


def linear_cross_entropy(
    features_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, targets_N: Tensor
) -> Tensor:
    """Mean nats a token of `cross_entropy(linear(features, weight, bias), targets)`.

    Few tokens are taken in one piece. More are taken in parts of `LARGEST_LOGITS` bytes by
    PyTorch's own `linear_cross_entropy`, which computes the gradients of a part on the way forward
    and lets go of its logits. It knows no autocast and returns a loss as precise as its inputs:
    it is given the precision of the weights, so that parts are multiplied in single precision.

    The gradient can be taken once, and has no gradient of its own.

    Args:
        features_ND: (N, D), N at least 1.
        weight_VD: (V, D).
        bias_V: (V,).
        targets_N: (N,), int64 token ids.
    """
    num_tokens, vocab_size = len(features_ND), len(weight_VD)
    part_size = max(1, LARGEST_LOGITS // (_BYTES * vocab_size))
    if num_tokens <= part_size:
        return F.cross_entropy(F.linear(features_ND, weight_VD, bias_V), targets_N)
    features_ND = features_ND.to(weight_VD.dtype)
    if not _TORCH_HAS_IT:
        return _recomputed(features_ND, weight_VD, bias_V, targets_N, part_size)
    options = torch.nn.LinearCrossEntropyOptions(chunking_method=None, batch_chunk_size=part_size)
    return F.linear_cross_entropy(
        features_ND, weight_VD, targets_N, linear_bias=bias_V, options=options
    )


def mean_over_rows(
    total_nats: Callable[[Tensor, Tensor, Tensor], Tensor],
    features_BTD: Tensor,
    tokens_BT: Tensor,
    targets_BT: Tensor,
    vocab_size: int,
) -> Tensor:
    """Mean nats a token of logits that need their whole row's tokens.

    More than `LARGEST_LOGITS` bytes are taken in parts of whole rows, whose logits are computed
    again on the way back.

    Args:
        total_nats: features, tokens and targets of rows to the sum of their nats.
        features_BTD: (B, T, D).
        tokens_BT: (B, T) ids.
        targets_BT: (B, T) ids.
        vocab_size: V.
    """
    num_rows = max(1, LARGEST_LOGITS // (_BYTES * vocab_size * tokens_BT.shape[1]))
    if len(targets_BT) <= num_rows:
        return total_nats(features_BTD, tokens_BT, targets_BT) / targets_BT.numel()
    total = _sum_of_parts(total_nats, num_rows, features_BTD, tokens_BT, targets_BT)
    return total / targets_BT.numel()


def _recomputed(
    features_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, targets_N: Tensor, part_size: int
) -> Tensor:
    def total(features: Tensor, targets: Tensor) -> Tensor:
        logits = F.linear(features, weight_VD, bias_V)
        return F.cross_entropy(logits, targets, reduction="sum")

    with torch.autocast(features_ND.device.type, enabled=False):
        return _sum_of_parts(total, part_size, features_ND, targets_N) / len(targets_N)


def _sum_of_parts(total: Callable[..., Tensor], part_size: int, *tensors: Tensor) -> Tensor:
    parts = zip(*(torch.split(tensor, part_size) for tensor in tensors), strict=True)
    totals = [
        checkpoint(total, *part, use_reentrant=False, preserve_rng_state=False) for part in parts
    ]
    return torch.stack(totals).sum()
