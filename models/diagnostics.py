"""What contexts look like: effective rank, identity mapping, sensitivity to tokens near and far.

Shapes: N contexts of C = context_dim entries; B sequences of T tokens.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.fixed_point import solve_rows
from models.sweeps import Network, shift_right

_FELT = 0.05
"""Share of a context that must change for a token to be felt in it."""


class MappingReport(NamedTuple):
    """How F treats its two inputs on real contexts and tokens.

    context_cosine: mean |cos(c_{t-1}, F(c_{t-1}, e_t))|, from 0 to 1; near 1 F is the identity.
    token_sensitivity: share of the output that changes with the token, from 0 (blind to tokens)
        to about 1 (the output with another token is unrelated).
    """

    context_cosine: float
    token_sensitivity: float


def effective_rank(contexts_NC: Tensor) -> float:
    """exp of the entropy of the singular values, normalised to sum 1, of the uncentred matrix.

    RankMe, arXiv 2210.02885. Uncentred: contexts that have collapsed onto one vector have rank 1,
    while their centred rank looks healthy. Computed in float64 from the smaller Gram matrix.

    Args:
        contexts_NC: (N, C).

    Returns:
        From 1 to min(N, C); 0 for a matrix of zeros; NaN where an entry is not finite.
    """
    matrix = contexts_NC.double()
    wide = matrix.shape[0] < matrix.shape[1]
    return rank_of_gram(matrix @ matrix.T if wide else matrix.T @ matrix)


def rank_of_gram(gram: Tensor) -> float:
    """Effective rank of a matrix whose Gram matrix, square and in float64, is given."""
    if not bool(gram.isfinite().all()):
        return float("nan")
    singular_values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    total = singular_values.sum()
    if total == 0:
        return 0.0
    return float(torch.special.entr(singular_values / total).sum().exp())


def reachable_rank(num_contexts: int, context_dim: int) -> float:
    """Effective rank of N independent standard Gaussian vectors in C dimensions, the best data.

    From the Marchenko-Pastur law of their singular values, by quadrature; a threshold above it
    cannot be met by any F.
    """
    smaller, larger = sorted((num_contexts, context_dim))
    ratio = smaller / larger
    lower, upper = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    # Substituting x = middle - half * cos(theta) takes the square-root ends out of the integrand.
    theta = (torch.arange(20_000, dtype=torch.float64) + 0.5) * torch.pi / 20_000
    eigenvalues = (lower + upper) / 2 - (upper - lower) / 2 * theta.cos()
    density = theta.sin().square() / eigenvalues.clamp_min(1e-300)
    density = density / density.sum()
    singular_values = eigenvalues.sqrt()
    mean = (density * singular_values).sum()
    entropy_excess = (density * singular_values * singular_values.log()).sum() / mean
    return float(smaller * mean * torch.exp(-entropy_excess))


@torch.no_grad()
def inspect_mapping(
    network: Network,
    contexts_BTC: Tensor,
    embeddings_BTE: Tensor,
    outputs_BTC: Tensor | None = None,
) -> MappingReport:
    """Judges F on the contexts and tokens of a text, first positions (which read zeros) left out.

    The token is swapped for the one of the sequence's neighbouring row, so that swapped tokens
    are as frequent as real ones; with one row, for the one of the previous position.

    Args:
        network: F.
        contexts_BTC: (B, T, C), contexts of the text, T at least 2.
        embeddings_BTE: (B, T, E), its embeddings.
        outputs_BTC: (B, T, C), F of each position's left neighbour, where it is known already: of a
            trajectory, the trajectory. Computed where None.

    Raises:
        ValueError: T is 1.
    """
    num_rows, num_positions, _ = contexts_BTC.shape
    if num_positions < 2:
        raise ValueError(f"a text of {num_positions} token has no context to read")
    previous = shift_right(contexts_BTC)[:, 1:]
    embeddings = embeddings_BTE[:, 1:]
    output = network(previous, embeddings) if outputs_BTC is None else outputs_BTC[:, 1:]
    swap_dim = 0 if num_rows > 1 else 1
    swapped = embeddings_BTE.roll(1, dims=swap_dim)[:, 1:]
    change = _share_changed(output, network(previous, swapped))
    differs = (swapped - embeddings).abs().amax(dim=-1) > 0
    sensitivity = change[differs].mean() if bool(differs.any()) else change.new_zeros(())
    cosine = F.cosine_similarity(previous, output, dim=-1).abs().mean()
    return MappingReport(float(cosine), float(sensitivity))


@torch.no_grad()
def context_sensitivity(network: Network, embeddings_BTE: Tensor) -> Tensor:
    """How much of a context changes with the token k positions before it, (K,), k = 0 to K - 1.

    One token of every row, a quarter of the way into it, is swapped for the neighbouring row's
    (rows with the same token there are left out), and both texts are solved exactly. The shares are
    those of `MappingReport.token_sensitivity`, averaged over rows; K is three quarters of T.

    Args:
        network: F.
        embeddings_BTE: (B, T, E), a text's embeddings, B at least 2.

    Raises:
        ValueError: there is no row whose token could be swapped.
    """
    position = embeddings_BTE.shape[1] // 4
    swapped_BE = embeddings_BTE[:, position].roll(1, dims=0)
    differs = (swapped_BE - embeddings_BTE[:, position]).abs().amax(dim=-1) > 0
    if not bool(differs.any()):
        raise ValueError(f"all {len(differs)} rows have the same token at position {position}")
    changed_BTE = embeddings_BTE.clone()
    changed_BTE[:, position] = swapped_BE
    before, after = (
        solve_rows(network, text_BTE[differs])[:, position:]
        for text_BTE in (embeddings_BTE, changed_BTE)
    )
    return _share_changed(before, after).mean(dim=0)


def memory_length(sensitivity_K: Tensor) -> int:
    """Tokens back to which a changed token is felt, in 5 % of the context: up to the K measured.

    Args:
        sensitivity_K: of `context_sensitivity`.
    """
    unfelt = (sensitivity_K < _FELT).nonzero()
    return int(unfelt[0]) if len(unfelt) > 0 else len(sensitivity_K)


def _share_changed(before: Tensor, after: Tensor) -> Tensor:
    """Two independent vectors of one length are sqrt(2) apart: that counts as all of a vector."""
    change = (before - after).norm(dim=-1) / before.norm(dim=-1).clamp_min(1e-12)
    share: Tensor = change / 2**0.5
    return share
