"""From logits to the next token: temperature, top-k and top-p.

Shapes: V = vocabulary, `...` any leading dimensions.
"""

import torch
from torch import Tensor


def token_probabilities(
    logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Tensor:
    """Probabilities from which the next token is drawn, (..., V) float64 that sum to 1.

    First the temperature, then the `top_k` most probable tokens, then of these the fewest whose
    probability is `top_p` in all (nucleus sampling; Holtzman et al., arXiv 1904.09751). Of tokens
    that are equally probable, those with the lower ids are kept.

    Args:
        logits: (..., V).
        temperature: 0 or more. Below 1 the probable becomes more so; at 0 the most probable token
            has probability 1.
        top_k: 1 or more; None keeps all.
        top_p: above 0 and at most 1, which keeps all.

    Raises:
        ValueError: one of them is out of its range.
    """
    if not temperature >= 0 or (top_k is not None and top_k < 1) or not 0 < top_p <= 1:
        raise ValueError(f"{temperature=} must be >= 0, {top_k=} >= 1 and {top_p=} in (0, 1]")
    logits = logits.double()
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).double()
    # The largest is 0, so that a temperature near 0 has no overflow.
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    if top_k is None and top_p == 1:
        return logits.softmax(dim=-1)
    sorted_logits, order = logits.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        sorted_logits[..., top_k:] = -torch.inf
    kept = _nucleus(sorted_logits.softmax(dim=-1), top_p)
    return torch.zeros_like(logits).scatter(-1, order, kept / kept.sum(dim=-1, keepdim=True))


def choose(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws a token for each of (B, V) logits by `token_probabilities`; (B,) int64.

    Raises:
        ValueError: as `token_probabilities`.
    """
    probabilities = token_probabilities(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


def _nucleus(sorted_probabilities: Tensor, top_p: float) -> Tensor:
    """Sets to 0 what follows the tokens that have `top_p` together."""
    before = sorted_probabilities.cumsum(dim=-1) - sorted_probabilities
    return sorted_probabilities.where(before < top_p, 0.0)
