"""Token embeddings from the past: tokens that follow the same tokens get similar vectors.

Shapes: V = vocab_size, E = embed_dim, N rows of T tokens.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

_LAGS = (1, 2)
"""Places back of the tokens that are counted."""
_POWER_STEPS = 3
"""Subspace iterations of the randomised decomposition."""
_SEED = 0
"""Of its random start: the same counts give the same vectors."""


def neighbour_embedding(batches_BT: Iterable[Tensor], *, vocab_size: int, embed_dim: int) -> Tensor:
    """Spectral embedding of tokens by the tokens that stood before them.

    Row x of the matrix that is decomposed has, for each lag k and token y, the square root of how
    often y stood k places before x, over 1 + the square root of how often x stands in the text
    (Hellinger distances, shrunk where a token is rare); columns are centred. A token's vector is
    its row of the left singular vectors, times the square roots of their values. Only what precedes a token
    counts: what follows it is the answer that Phase 2 is asked for. Lebret and Collobert, Word
    Embeddings through Hellinger PCA, arXiv 1312.5542; Halko et al., arXiv 0909.4061.

    Args:
        batches_BT: rows of token ids, (B, T) each.
        vocab_size: V.
        embed_dim: E. Where the text's tokens span fewer dimensions, the others are zero.

    Returns:
        (V, E), not normalised; zeros for tokens that never stand in the text after another.
    """
    counts = _counts(batches_BT, vocab_size)
    rows, columns = counts.indices()
    totals = torch.zeros(vocab_size).index_add_(0, rows, counts.values()) / len(_LAGS)
    values = counts.values().sqrt() / (1 + totals[rows].sqrt())
    matrix = torch.sparse_coo_tensor(
        counts.indices(), values, counts.shape, is_coalesced=True, check_invariants=False
    )
    mean = torch.zeros(counts.shape[1]).index_add_(0, columns, values) / vocab_size
    rank = min(embed_dim, vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        left, singular, _ = torch.svd_lowrank(
            matrix, q=rank, niter=_POWER_STEPS, M=mean.expand(vocab_size, -1)
        )
    embedding = torch.zeros(vocab_size, embed_dim)
    embedding[:, :rank] = left * singular.sqrt()
    embedding[totals == 0] = 0
    return embedding


def _counts(batches_BT: Iterable[Tensor], vocab_size: int) -> Tensor:
    """(V, lags x V), sparse: how often the token of a column stood before the token of a row."""
    shape = (vocab_size, len(_LAGS) * vocab_size)
    counts = _sparse(torch.empty(2, 0, dtype=torch.long), shape)
    for batch in batches_BT:
        for index, lag in enumerate(_LAGS):
            after, before = batch[:, lag:].flatten(), batch[:, :-lag].flatten()
            pairs = torch.stack([after, before + index * vocab_size])
            counts = (counts + _sparse(pairs, shape)).coalesce()
    return counts


def _sparse(pairs: Tensor, shape: tuple[int, int]) -> Tensor:
    ones = torch.ones(pairs.shape[1])
    return torch.sparse_coo_tensor(pairs, ones, shape, check_invariants=False).coalesce()
