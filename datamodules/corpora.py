"""Text from wherever the user has it: documents, one string each.

A document is a conversation, a file, a paragraph of a lone file, or a row of a table. Reading of
JSONL, parquet and Hub datasets is left to Hugging Face `datasets`.
"""

import hashlib
import importlib.metadata
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from config import InputError
from datamodules.chitchat import load_chitchat

_TABLES = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
_RIGHT = (
    "It must be `chitchat`, a .txt file or a folder of them, a .jsonl or .parquet file with a "
    "`text` or `messages` column, or the name of a dataset on the Hugging Face Hub."
)


class Corpus(NamedTuple):
    """A corpus that was found, and not yet read.

    fingerprint: changes whenever the text does.
    read: the documents; some may be empty.
    """

    fingerprint: str
    read: Callable[[], list[str]]


def open_corpus(name: str) -> Corpus:
    """Finds a corpus.

    Args:
        name: `chitchat`, the path of a .txt file, of a folder of them, of a .jsonl or .parquet
            file, or the name of a dataset on the Hub.

    Raises:
        InputError: it is missing, of an unknown kind, or cannot be reached.
    """
    path = Path(name)
    if name == "chitchat":
        return Corpus(f"chitchat {importlib.metadata.version('chitchat-dataset')}", load_chitchat)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.txt") if file.is_file())
        if not files:
            raise InputError(f"--corpus {name!r} is a folder without a .txt file. {_RIGHT}")
        fingerprint = f"folder {_digest_files(files)}"
        return Corpus(fingerprint, lambda: [_read_text(file) for file in files])
    if path.suffix == ".txt" and path.is_file():
        return Corpus(f"text {_digest_files([path])}", lambda: _paragraphs(_read_text(path)))
    if path.suffix in _TABLES and path.is_file():
        fingerprint = f"{_TABLES[path.suffix]} {_digest_files([path])}"
        return Corpus(fingerprint, lambda: _read_table(path))
    if path.exists():
        raise InputError(f"--corpus {name!r} is of a kind that is not known. {_RIGHT}")
    if path.suffix in (".txt", *_TABLES) or not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name):
        raise InputError(f"--corpus {name!r} does not exist. {_RIGHT}")
    return _open_hub(name)


def _digest_files(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise InputError(f"--corpus: {file} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"--corpus: {path} is not UTF-8 text: {error}.") from error


def _paragraphs(text: str) -> list[str]:
    """Documents of a lone file: what stands between blank lines, or lines where there are none."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return paragraphs if len(paragraphs) > 1 else text.splitlines()


def _read_table(path: Path) -> list[str]:
    import datasets
    import pyarrow as pa
    from datasets.exceptions import DatasetGenerationError

    datasets.disable_progress_bars()
    # `datasets` reads `*` and `[…]` as patterns, and keeps its own cache by time of change: the
    # file goes by a plain name into a cache of its own, which our tokens replace.
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / f"corpus{path.suffix}"
        plain.symlink_to(path.resolve())
        try:
            table = datasets.load_dataset(
                _TABLES[path.suffix], data_files=str(plain), split="train", cache_dir=folder
            )
        except (DatasetGenerationError, pa.ArrowInvalid, ValueError, StopIteration) as error:
            reason = _first_line(error.__cause__ or error) or "it holds no row"
            kind = path.suffix[1:]
            raise InputError(f"--corpus: {path} cannot be read as {kind}: {reason}") from error
        return _documents(table, str(path))


def _open_hub(name: str) -> Corpus:
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    try:
        splits = datasets.load_dataset(name)
    # ValueError: the name is of several configurations; the library lists them.
    except (DatasetNotFoundError, OSError, ValueError) as error:
        reason = _first_line(error) or type(error).__name__
        raise InputError(
            f"--corpus {name!r} is no file here, and the Hugging Face Hub did not give it: {reason}"
        ) from error
    training = [split for split in splits if str(split).startswith("train")]
    table = splits[(training or list(splits))[0]]
    # `datasets` has no public name for the fingerprint that its own cache is keyed by.
    return Corpus(f"{name} {table._fingerprint}", lambda: _documents(table, name))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")


def _documents(table: Any, name: str) -> list[str]:
    if "text" in table.column_names:
        return [_as_text(text, name) for text in table["text"]]
    if "messages" in table.column_names:
        return [_render_messages(messages, name) for messages in table["messages"]]
    columns = ", ".join(table.column_names)
    raise InputError(f"--corpus {name!r} has the columns {columns}; it needs `text` or `messages`.")


def _as_text(text: object, name: str) -> str:
    if text is None:
        return ""
    if not isinstance(text, str):
        raise InputError(f"--corpus {name!r}: `text` must hold text, not {str(text)[:80]!r}.")
    return text


def _render_messages(messages: list[Any] | None, name: str) -> str:
    """A chat in UltraChat's schema, [{"role": "user", "content": "…"}, …], as A: and B: lines."""
    speakers: dict[object, str] = {}
    lines = []
    for message in messages or []:
        if not _is_message(message):
            raise InputError(
                f"--corpus {name!r}: `messages` must hold lists of {{role, content}}, "
                f"not {str(message)[:80]!r}."
            )
        speaker = speakers.setdefault(message["role"], chr(ord("A") + len(speakers) % 26))
        lines.append(f"{speaker}: {' '.join((message['content'] or '').split())}")
    return "\n".join(lines)


def _is_message(message: object) -> bool:
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
        return False
    return message["content"] is None or isinstance(message["content"], str)
