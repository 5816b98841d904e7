"""Contexts that are kept from sweep to sweep, where there is room for them.

Shapes: N rows of T tokens, B of them in a batch, C = context_dim.
"""

import math
import os
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from config import ContextStorage, InputError
from lightning_modules.free_memory import free_memory

Place = Literal["device", "memory", "disk"]

_ROOM = 0.5
"""Share of the free memory that contexts may take: training itself needs the rest."""
_ROWS_AT_ONCE = 256


class ContextStore:
    """Contexts of the rows of a split, (N, T, C), zeros at first; read and written by rows.

    They lie on the device, in main memory or in a file, and come back on the device in the type
    that is computed with: the place changes no number, `kept_as` rounds. Zeros take no main memory
    and no disk traffic before something else is written. A file has no name once it is open: its
    space is free again when the process ends, however it does.

    Args:
        shape: (N, T, C).
        kept_as: type of what is kept.
        like: a tensor of the type and on the device that is computed with.
        storage: where to keep them; `auto` takes the first of device, memory and disk of whose
            free bytes contexts fill half at most.
        folder: of the file.
        num_sharing: processes that keep as much on this machine, and have its memory together.

    Raises:
        InputError: the disk has no room, or `auto` found none.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        kept_as: torch.dtype,
        like: Tensor,
        storage: ContextStorage,
        folder: Path,
        num_sharing: int = 1,
    ) -> None:
        self._device, self._read_as = like.device, like.dtype
        num_bytes = math.prod(shape) * kept_as.itemsize
        self.place: Place = (
            _place_for(num_bytes, like.device, num_sharing) if storage == "auto" else storage
        )
        if self.place == "disk":
            self.rows = _file_of_zeros(num_bytes, kept_as, folder).view(shape)
        elif self.place == "memory" or like.device.type == "cpu":
            # torch's own zeros are written one by one; numpy's are pages that nobody has touched.
            self.rows = torch.from_numpy(np.zeros(num_bytes, np.uint8)).view(kept_as).view(shape)
        else:
            self.rows = torch.zeros(shape, dtype=kept_as, device=like.device)

    def __getitem__(self, row_index: Tensor) -> Tensor:
        """Contexts (B, T, C) of rows, (B,)."""
        # Away from the device this waits for it, as every step does that reads from the host.
        rows = self.rows[row_index.to(self.rows.device)]
        return rows.to(self._device, self._read_as)

    def __setitem__(self, row_index: Tensor, contexts_BTC: Tensor) -> None:
        """Replaces the contexts of rows, (B,)."""
        contexts_BTC = contexts_BTC.to(self.rows.device, self.rows.dtype)
        self.rows[row_index.to(self.rows.device)] = contexts_BTC

    def fill(self, contexts_NTC: Tensor) -> None:
        """Takes all rows from a tensor, a few at a time."""
        kept = torch.split(self.rows, _ROWS_AT_ONCE)
        given = torch.split(contexts_NTC, _ROWS_AT_ONCE)
        for kept_rows, given_rows in zip(kept, given, strict=True):
            kept_rows.copy_(given_rows)


def _place_for(num_bytes: int, device: torch.device, num_sharing: int) -> Place:
    if device.type == "cuda" and num_bytes <= _ROOM * torch.cuda.mem_get_info(device)[0]:
        return "device"
    if num_bytes * num_sharing <= _ROOM * free_memory():
        return "device" if device.type == "cpu" else "memory"
    return "disk"


def _file_of_zeros(num_bytes: int, dtype: torch.dtype, folder: Path) -> Tensor:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="contexts_") as file:
        try:
            # Holds the space, as a full disk would otherwise kill the process at some later write.
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        except OSError as error:
            raise InputError(
                f"--cache-dir {folder} has no room for {num_bytes / 2**30:.1f} GiB of contexts "
                f"({error.strerror}); give another, or a smaller --num-samples."
            ) from error
        return torch.from_file(
            file.name, shared=True, size=num_bytes // dtype.itemsize, dtype=dtype
        )
