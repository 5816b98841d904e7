"""Token embeddings by the tokens that stand before them."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from models.neighbour_embedding import neighbour_embedding

V = 12


def text(num_rows: int = 40) -> Tensor:
    """(N, 16): tokens 2 and 3 follow 0 1 or 1 0, 4 and 5 follow 6 7 or 7 6; what follows is random."""
    generator = torch.Generator().manual_seed(0)

    def pick(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (num_rows * 2, 1), generator=generator)

    first, second = pick(0, 2), pick(6, 8)
    blocks = [
        first,
        1 - first,
        pick(2, 4),
        pick(8, 10),
        second,
        13 - second,
        pick(4, 6),
        pick(8, 10),
    ]
    return torch.cat(blocks, dim=1).view(num_rows, -1)


def embed(rows: Tensor, embed_dim: int = 6) -> Tensor:
    return neighbour_embedding([rows], vocab_size=V, embed_dim=embed_dim)


def test_tokens_after_the_same_tokens_are_alike() -> None:
    embedding = embed(text())
    assert cosine_similarity(embedding[2], embedding[3], dim=0) > 0.95
    assert cosine_similarity(embedding[4], embedding[5], dim=0) > 0.95
    assert cosine_similarity(embedding[2], embedding[4], dim=0) < 0.5


def test_it_is_the_decomposition_of_the_centred_matrix() -> None:
    """Inner products of all vectors, by exact arithmetic."""
    rows = text()
    matrix = torch.zeros(V, 2 * V, dtype=torch.float64)
    for index, lag in enumerate((1, 2)):
        for row in rows.tolist():
            for before, after in zip(row[:-lag], row[lag:], strict=True):
                matrix[after, before + index * V] += 1
    totals = matrix.sum(dim=1, keepdim=True) / 2
    matrix = matrix.sqrt() / (1 + totals.sqrt())
    matrix -= matrix.mean(dim=0)
    left, singular, _ = torch.linalg.svd(matrix)
    # Rows of tokens that follow none are left out; signs are arbitrary, and cancel in products.
    expected = (left * singular @ left.T)[:10, :10]
    embedding = embed(rows, embed_dim=V).double()[:10]
    torch.testing.assert_close(embedding @ embedding.T, expected, rtol=0, atol=1e-5)


def test_what_follows_a_token_changes_nothing() -> None:
    """The last token of every row stands before no other."""
    rows = torch.randint(0, 8, (30, 9), generator=torch.Generator().manual_seed(1))
    rows[:, -1], other = 8, rows.clone()
    other[:, -1] = 9
    before, after = embed(rows, embed_dim=V)[:8], embed(other, embed_dim=V)[:8]
    torch.testing.assert_close(before @ before.T, after @ after.T, rtol=0, atol=1e-5)


def test_a_token_that_never_follows_another_has_no_vector() -> None:
    embedding = embed(text())
    assert torch.equal(embedding[10:], torch.zeros(2, 6))
    assert not embedding[:8].eq(0).all(dim=1).any()


@pytest.mark.parametrize("parts", [1, 3, 40])
def test_parts_of_the_text_add_up_and_numbers_are_repeated(parts: int) -> None:
    rows = text()
    torch.manual_seed(parts)
    state = torch.get_rng_state()
    embedding = neighbour_embedding(rows.chunk(parts), vocab_size=V, embed_dim=6)
    assert torch.equal(embedding, embed(rows))
    assert torch.equal(torch.get_rng_state(), state)


def test_more_dimensions_than_tokens_are_zero() -> None:
    wide = embed(text(), embed_dim=20)
    assert wide.shape == (V, 20)
    assert wide.isfinite().all()
