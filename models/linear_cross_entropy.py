"""Cross-entropy of a linear layer's outputs that never holds many logits.

Shapes: N tokens, D features, V = vocabulary.
"""

import torch.nn.functional as F
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions

LARGEST_LOGITS = 128 * 2**20
"""Bytes of single-precision logits that are held at once: 8,192 tokens of V = 4,096, an evaluated
batch of the default size, or 667 of V = 50,257. A half or a quarter of it is as quick."""

_BYTES = 4


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
    return F.linear_cross_entropy(
        features_ND.to(weight_VD.dtype),
        weight_VD,
        targets_N,
        linear_bias=bias_V,
        options=LinearCrossEntropyOptions(chunking_method=None, batch_chunk_size=part_size),
    )
