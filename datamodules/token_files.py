"""Token ids on disk: a folder with a NumPy file for each split, and the tokenizer."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from datamodules.splits import SPLITS, Split
from datamodules.tokenizer import parse_tokenizer, vocab_size_of
from datamodules.whole_files import write_bytes_whole

Tokens = npt.NDArray[np.unsignedinteger[Any]]
"""uint16, or uint32 where the vocabulary needs it."""

_RECORD = "record.json"
_TOKENIZER = "tokenizer.json"
_DIGESTED_BYTES = 64 * 2**20
"""Of a file that is larger, only the size is looked at: nobody waits for all of it to be read."""
_COUNTED_AT_ONCE = 2**22
_KEPT_COUNTS = 2**24
"""Tokens that are counted in a moment."""


class TokenSplits(NamedTuple):
    """Token ids of each split, documents one after the other, each closed by end-of-text.

    train, validation, test: (number of tokens,), mapped from their files and read where they are
        asked for; validation and test may be empty.
    num_bytes: (3,) UTF-8 bytes of the documents of train, validation and test.
    """

    train: Tokens
    validation: Tokens
    test: Tokens
    num_bytes: npt.NDArray[np.int64]
    tokenizer: Tokenizer
    folder: Path


class TokenWriter:
    """Writes the token files of a new folder; it is whole after `finish`.

    Args:
        folder: empty.
        tokenizer: whose ids will be written.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        self.folder = folder
        self.tokenizer = tokenizer
        self.dtype = np.dtype(np.uint16 if vocab_size_of(tokenizer) <= 2**16 else np.uint32)
        self._num_bytes = dict.fromkeys(SPLITS, 0)
        self._open = ExitStack()
        self._files = {
            split: self._open.enter_context(_ArrayFile(folder / f"{split}.npy", self.dtype))
            for split in SPLITS
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def append(self, split: Split, ids: Sequence[int], num_bytes: int) -> None:
        """Adds the ids of a text of so many bytes to a split."""
        self._files[split].append(np.asarray(ids, dtype=self.dtype))
        self._num_bytes[split] += num_bytes

    def finish(self) -> None:
        """Writes what is left, and the record by which a reader knows that all is there."""
        self._open.close()
        write_bytes_whole(self.folder / _TOKENIZER, self.tokenizer.to_str().encode())
        names = [*(f"{split}.npy" for split in SPLITS), _TOKENIZER]
        record = {
            "num_bytes": list(self._num_bytes.values()),
            "files": {name: _facts(self.folder / name) for name in names},
        }
        text = json.dumps(record).encode()
        write_bytes_whole(self.folder / _RECORD, _digest(text) + b"\n" + text)


class _ArrayFile:
    """A one-dimensional .npy file that grows; the header has room for any length."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._size = 0
        self._file = path.open("wb")
        self._write_header()
        self._start = self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.seek(0)
        self._write_header()
        assert self._file.tell() == self._start
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def append(self, array: Tokens) -> None:
        self._file.write(array.tobytes())
        self._size += len(array)

    def _write_header(self) -> None:
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self._size,)}
        np.lib.format.write_array_header_1_0(self._file, header)


def read_tokens(folder: Path) -> TokenSplits | None:
    """Maps the files of a folder; None where it is missing, or not what was written."""
    try:
        digest, _, text = (folder / _RECORD).read_bytes().partition(b"\n")
        if digest != _digest(text):
            return None
        record = json.loads(text)
        if any(_facts(folder / name) != facts for name, facts in record["files"].items()):
            return None
        train, validation, test = (np.load(folder / f"{s}.npy", mmap_mode="r") for s in SPLITS)
    # ValueError: a file so large that its digest was not compared has a damaged header.
    except (OSError, ValueError):
        return None
    return TokenSplits(
        train,
        validation,
        test,
        num_bytes=np.asarray(record["num_bytes"]),
        tokenizer=parse_tokenizer((folder / _TOKENIZER).read_text(encoding="utf-8")),
        folder=folder,
    )


def count_tokens(splits: TokenSplits, num_tokens: int) -> npt.NDArray[np.int64]:
    """How often each token stands in the first `num_tokens` of the training split, (V,).

    Counts of many tokens are kept beside the token files.
    """
    vocab_size = vocab_size_of(splits.tokenizer)
    if num_tokens < _KEPT_COUNTS:
        return _count(splits.train[:num_tokens], vocab_size)
    path = splits.folder / f"counts_{num_tokens}.json"
    if path.is_file():
        return np.asarray(json.loads(path.read_text()))
    counts = _count(splits.train[:num_tokens], vocab_size)
    write_bytes_whole(path, json.dumps(counts.tolist()).encode(), is_shared=True)
    return counts


def _count(tokens: Tokens, vocab_size: int) -> npt.NDArray[np.int64]:
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(tokens), _COUNTED_AT_ONCE):
        part = tokens[start : start + _COUNTED_AT_ONCE]
        counts += np.bincount(part, minlength=vocab_size)
    return counts


def _facts(path: Path) -> dict[str, Any]:
    """Size and, of a file that is soon read, the digest."""
    size = path.stat().st_size
    if size > _DIGESTED_BYTES:
        return {"size": size}
    with path.open("rb") as file:
        return {"size": size, "digest": hashlib.file_digest(file, "sha256").hexdigest()}


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
