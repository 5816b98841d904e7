"""Rows of a split, gathered from its token file.

Shapes: N rows of T tokens, B of them in a batch.
"""

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
    """tokens: (B, T) int64. row_index: (B,) int64, each row's number in its split."""

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
        self._map(tokens)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def num_tokens(self) -> int:
        return self.shape[0] * self.shape[1]

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
        self._rows = np.asarray(tokens)[: self.num_tokens].reshape(self.shape)

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which maps the file itself: the tokens are not copied."""
        return {"shape": self.shape, "_file": self._file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.shape = state["shape"]
        self._map(np.load(state["_file"], mmap_mode="r"))
