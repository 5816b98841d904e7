"""A digest of files, which for large ones is computed once and kept."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from config import InputError
from datamodules.progress import ByteProgress
from datamodules.whole_files import write_bytes_whole

_KEPT_BYTES = 64 * 2**20
"""Files of fewer bytes in all are read each time: that takes a moment, and trusts no clock."""
_READ_BYTES = 2**18


def digest_files(files: Sequence[Path], cache_dir: Path) -> str:
    """A digest of the files' contents and suffixes, in their order.

    That of many bytes is kept in `cache_dir/fingerprints`, under the files' paths, sizes and times
    of change.

    Raises:
        InputError: a file cannot be read.
    """
    try:
        stats = [file.stat() for file in files]
        num_bytes = sum(stat.st_size for stat in stats)
        if num_bytes < _KEPT_BYTES:
            return _digest(files, num_bytes)
        key = hashlib.sha256()
        for file, stat in zip(files, stats, strict=True):
            parts = (file.resolve(), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            key.update(repr(parts).encode())
        kept = cache_dir / "fingerprints" / key.hexdigest()[:32]
        if kept.is_file():
            return kept.read_text()
        digest = _digest(files, num_bytes)
    except OSError as error:
        raise InputError(f"--corpus: {error.filename} cannot be read: {error.strerror}.") from error
    write_bytes_whole(kept, digest.encode(), is_shared=True)
    return digest


def _digest(files: Sequence[Path], num_bytes: int) -> str:
    digest = hashlib.sha256()
    with ByteProgress("Looking for changes in the corpus", num_bytes) as progress:
        for file in files:
            content = hashlib.sha256()
            with file.open("rb") as stream:
                while piece := stream.read(_READ_BYTES):
                    content.update(piece)
                    progress.advance(len(piece))
            digest.update(content.digest() + file.suffix.encode() + b"\0")
    return digest.hexdigest()
