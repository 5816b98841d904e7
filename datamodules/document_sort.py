"""Documents of a corpus of any size in the order of their content's hash, none twice.

An external sort by distribution: documents are dealt out to files by the first bits of their hash,
and a file at a time is read and sorted. As hashes are uniform, so are the files.
"""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from datamodules.splits import digest_of

_BITS = 6
_NUM_BUCKETS = 1 << _BITS
_MAX_LEVEL = 64 // _BITS - 1
_BUCKET_BYTES = 32 * 2**20
"""Documents that are held at once; a file with more is dealt out again."""
_DOCUMENT_BYTES = 256
"""What a document takes beside its text."""
_LENGTH_BYTES = 8
_BUFFER_BYTES = 2**16


class Document(NamedTuple):
    """Its UTF-8 bytes and their hash."""

    text: bytes
    digest: bytes


def deal_out(documents: Iterable[bytes], folder: Path, level: int = 0) -> None:
    """Writes documents to the files of a folder, by the bits of their hash that a level looks at."""
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        buckets = [
            stack.enter_context(path.open("wb", buffering=_BUFFER_BYTES))
            for path in _buckets(folder)
        ]
        for text in documents:
            bucket = buckets[_bucket_of(digest_of(text), level)]
            bucket.write(len(text).to_bytes(_LENGTH_BYTES))
            bucket.write(text)


def sorted_documents(folder: Path, level: int = 0) -> Iterator[Document]:
    """Yields what was dealt out, ordered by hash, each document once.

    Holds about 32 MiB of documents at once, or the largest document where that is more.
    """
    for path in _buckets(folder):
        yield from _sorted_bucket(path, level + 1)


def _sorted_bucket(path: Path, level: int) -> Iterator[Document]:
    texts: dict[bytes, bytes] = {}
    num_bytes = 0
    for text in _read(path):
        size = len(texts)
        texts.setdefault(digest_of(text), text)
        if len(texts) > size:
            num_bytes += len(text) + _DOCUMENT_BYTES
        if num_bytes > _BUCKET_BYTES and len(texts) > 1 and level <= _MAX_LEVEL:
            break
    else:
        for digest in sorted(texts):
            yield Document(texts[digest], digest)
        return
    texts.clear()
    with tempfile.TemporaryDirectory(dir=path.parent) as deeper:
        deal_out(_read(path), Path(deeper), level)
        yield from sorted_documents(Path(deeper), level)


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        while length := file.read(_LENGTH_BYTES):
            yield file.read(int.from_bytes(length))


def _buckets(folder: Path) -> list[Path]:
    return [folder / f"{number:02}" for number in range(_NUM_BUCKETS)]


def _bucket_of(digest: bytes, level: int) -> int:
    shift = 64 - _BITS * (level + 1)
    return (int.from_bytes(digest[:8]) >> shift) % _NUM_BUCKETS
