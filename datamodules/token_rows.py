"""Rows of a split, gathered from its token file.

Shapes: N rows of T tokens, B of them in a batch.
"""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.token_files import Tokens

_TOKENS_AT_ONCE = 2**20


class TokenBatch(NamedTuple):
    """tokens: (B, T) int64. row_index: (B,) int64, each row's number among the process's own."""

    tokens: Tensor
    row_index: Tensor


class TokenRows(Dataset[TokenBatch]):
    """The first rows of a split; a batch is one gathering from the mapped file.

    Args:
        tokens: (number of tokens,), all of a .npy file as `np.load` maps it.
        length: tokens in a row.
        limit: rows at most; None takes all that are full.
    """

    def __init__(self, tokens: Tokens, length: int, limit: int | None = None) -> None:
        num_rows = len(tokens) // length
        self.shape = (num_rows if limit is None else min(num_rows, limit), length)
        self._num_rows = self.shape[0]
        self._strides: list[tuple[int, int]] = []
        self._map(tokens)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def num_tokens(self) -> int:
        return self.shape[0] * self.shape[1]

    def part(self, rank: int, num_ranks: int) -> "TokenRows":
        """Every `num_ranks`-th row from row `rank` on, counted anew; nothing is copied."""
        part = copy.copy(self)
        part._strides = [*self._strides, (rank, num_ranks)]
        part._rows = self._rows[rank::num_ranks]
        part.shape = (len(part._rows), self.shape[1])
        return part

    def take(self, row_index: Tensor) -> Tensor:
        """Token ids (B, T) int64 of rows, (B,)."""
        return torch.from_numpy(self._rows[row_index.numpy()].astype(np.int64))

    def parts(self) -> Iterator[Tensor]:
        """All rows, some at a time: (B, T) int64."""
        num_rows = max(1, _TOKENS_AT_ONCE // self.shape[1])
        for start in range(0, len(self), num_rows):
            yield torch.from_numpy(self._rows[start : start + num_rows].astype(np.int64))

    @property
    def tokens(self) -> Tensor:
        """All rows in memory, (N, T) int64: for a few."""
        return torch.from_numpy(self._rows.astype(np.int64))

    def __getitems__(self, indices: Sequence[int]) -> TokenBatch:
        row_index = torch.as_tensor(indices)
        return TokenBatch(self.take(row_index), row_index)

    def _map(self, tokens: Tokens) -> None:
        self._file = Path(getattr(tokens, "filename", ""))
        # As a plain array: NumPy's class for maps takes longer to index than a batch to gather.
        shape = (self._num_rows, self.shape[1])
        self._rows = np.asarray(tokens)[: shape[0] * shape[1]].reshape(shape)
        for rank, num_ranks in self._strides:
            self._rows = self._rows[rank::num_ranks]

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which maps the file itself: the tokens are not copied."""
        state = self.__dict__.copy()
        del state["_rows"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map(np.load(state["_file"], mmap_mode="r"))
