"""Tokens of the three splits, made once and kept under a key of everything they depend on."""

import contextlib
import errno
import hashlib
import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from rich.console import Console
from tokenizers import Tokenizer

from config import InputError
from datamodules.corpora import Corpus, open_corpus
from datamodules.document_sort import Document, deal_out, sorted_documents
from datamodules.progress import ByteProgress
from datamodules.splits import SPLITS, Split, digest_of, split_of_digest
from datamodules.token_files import TokenSplits, TokenWriter, read_tokens
from datamodules.tokenizer import cut, end_of_text_id, load_tokenizer, train_tokenizer

_TRAINED_ON_BYTES = 64 * 2**20
"""Training text that a tokenizer is made from at most: the documents first in order of their hash,
which is a draw at random that is always the same."""
_ENCODED_AT_ONCE = 2**20
"""Bytes of text; their encodings take forty times as much while they are made."""
_NOT_THE_TOKENS = (
    "fingerprint.py",
    "plain_line.py",
    "progress.py",
    "row_sampler.py",
    "text_stream.py",
    "token_datamodule.py",
    "token_loader.py",
    "token_rows.py",
    "whole_files.py",
)
"""Sources of this room that no token depends on."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def load_tokens(corpus: str, tokenizer: str, vocab_size: int, cache_dir: Path) -> TokenSplits:
    """Maps the cache's token files, or reads the corpus, trains the tokenizer and writes them.

    The memory that it takes does not grow with the corpus; the disk holds a second copy of the text
    meanwhile. Of several processes that start at once, one writes and the others wait for it.

    Args:
        corpus: as `open_corpus` takes it.
        tokenizer: `train`, or the path of a tokenizer.json.
        vocab_size: of the tokenizer that is trained.
        cache_dir: made where it does not exist.

    Raises:
        InputError: the corpus or the tokenizer cannot be used, or `cache_dir` cannot be written.
    """
    given = None if tokenizer == "train" else load_tokenizer(Path(tokenizer))
    with _told_of_no_room(cache_dir):
        source = open_corpus(corpus, cache_dir)
        tokenizer_key = f"train {vocab_size}" if given is None else given.to_str()
        folder = cache_dir / "tokens" / f"{_key(source.fingerprint, tokenizer_key)}.tokens"
        cached = read_tokens(folder)
        if cached is not None:
            return cached
        with _one_process_at_a_time(folder):
            if read_tokens(folder) is None:
                _make(folder, _Task(corpus, source, given, vocab_size))
    made = read_tokens(folder)
    assert made is not None, "it was written just now"
    return made


class _Task(NamedTuple):
    name: str
    corpus: Corpus
    given: Tokenizer | None
    vocab_size: int


def _key(*parts: str) -> str:
    digest = hashlib.sha256(importlib.metadata.version("tokenizers").encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        if source.name not in _NOT_THE_TOKENS:
            digest.update(source.read_bytes())
    for part in parts:
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()[:32]


@contextlib.contextmanager
def _told_of_no_room(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM and not str(error.filename).startswith(str(cache_dir)):
            raise
        raise InputError(
            f"--cache-dir {str(cache_dir)!r} cannot be written: {error.strerror}; it must be a "
            "folder with room for the corpus and half as much again."
        ) from error


@contextlib.contextmanager
def _one_process_at_a_time(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        Console(stderr=True).print("Waiting for another process, which tokenises this corpus")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(folder: Path, task: _Task) -> None:
    """Writes in a folder beside the final one, which it becomes when it is whole."""
    for left in folder.parent.glob(f"{folder.stem}.*.part"):  # by a process that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f"{folder.stem}.", suffix=".part"
    ) as part:
        made = Path(part) / "tokens"
        made.mkdir()
        _tokenise(task, Path(part) / "documents", made)
        if folder.is_dir():
            shutil.rmtree(folder)  # it is damaged
        folder.unlink(missing_ok=True)
        made.rename(folder)


def _tokenise(task: _Task, documents: Path, made: Path) -> None:
    num_bytes = _deal_out(task, documents)
    tokenizer = task.given or _train(task, documents, num_bytes)
    end = end_of_text_id(tokenizer)
    with (
        TokenWriter(made, tokenizer) as writer,
        ByteProgress(f"Tokenising {task.name}", num_bytes) as progress,
    ):
        pieces = _pieces(sorted_documents(documents), are_cut=task.given is None)
        for batch in _batches(pieces):
            texts = [piece.text for piece in batch]
            encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            for piece, encoding in zip(batch, encodings, strict=True):
                ids = [*encoding.ids, end] if piece.is_last else encoding.ids
                writer.append(piece.split, ids, piece.num_bytes)
            progress.advance(sum(piece.num_bytes for piece in batch))
        writer.finish()


def _train(task: _Task, documents: Path, num_bytes: int) -> Tokenizer:
    total = min(num_bytes, _TRAINED_ON_BYTES)
    with ByteProgress(f"Training the tokenizer on {task.name}", total) as progress:
        training = _training_text(sorted_documents(documents), progress)
        return train_tokenizer(training, task.vocab_size)


def _deal_out(task: _Task, folder: Path) -> int:
    """Writes the documents to a folder, to be sorted; the bytes of all."""
    num_documents = dict.fromkeys(SPLITS, 0)
    num_bytes = 0

    def counted(progress: ByteProgress) -> Iterator[bytes]:
        nonlocal num_bytes
        for text in _texts(task):
            num_documents[split_of_digest(digest_of(text))] += 1
            num_bytes += len(text)
            progress.advance(len(text))
            yield text

    with ByteProgress(f"Reading {task.name}", task.corpus.num_bytes) as progress:
        deal_out(counted(progress), folder)
    _require_documents(task.name, num_documents)
    return num_bytes


def _texts(task: _Task) -> Iterator[bytes]:
    for document in task.corpus.read():
        document = document.strip()
        if not document:
            continue
        try:
            yield document.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"--corpus {task.name!r} holds half of a surrogate pair, which is no character, in "
                f"the document that begins {document[:40]!r}."
            ) from error


def _require_documents(name: str, num_documents: dict[Split, int]) -> None:
    num_all = sum(num_documents.values())
    if num_all == 0:
        raise InputError(f"--corpus {name!r} holds no text.")
    num_train, num_validation = num_documents["train"], num_documents["validation"]
    if not num_train or not num_validation:
        raise InputError(
            f"--corpus {name!r} has {num_all} documents, of which {num_train} fell to training and "
            f"{num_validation} to validation; it needs more documents."
        )


def _training_text(documents: Iterable[Document], progress: ByteProgress) -> Iterator[str]:
    num_bytes = 0
    for document in documents:
        if split_of_digest(document.digest) != "train":
            continue
        for text in cut(document.text.decode(), _ENCODED_AT_ONCE):
            size = len(text.encode())
            num_bytes += size
            progress.advance(size)
            yield text
            if num_bytes >= _TRAINED_ON_BYTES:
                return


class _Piece(NamedTuple):
    """Of a document, or all of it."""

    split: Split
    text: str
    num_bytes: int
    is_last: bool


def _pieces(documents: Iterable[Document], are_cut: bool) -> Iterator[_Piece]:
    """Documents, cut where they are long; what a given tokenizer makes of pieces is not known."""
    for document in documents:
        split, text = split_of_digest(document.digest), document.text.decode()
        texts = list(cut(text, _ENCODED_AT_ONCE)) if are_cut else [text]
        for number, part in enumerate(texts, 1):
            yield _Piece(split, part, len(part.encode()), is_last=number == len(texts))


def _batches(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    batch: list[_Piece] = []
    num_bytes = 0
    for piece in pieces:
        batch.append(piece)
        num_bytes += piece.num_bytes
        if num_bytes >= _ENCODED_AT_ONCE:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch
