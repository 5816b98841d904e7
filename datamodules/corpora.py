"""Text from wherever the user has it: documents, one string each, read one after the other.

A document is a conversation, a text file of a folder, a paragraph of a lone text file, or a row of
a table. Hub datasets are left to Hugging Face `datasets`, which keeps them on disk.
"""

import contextlib
import importlib.metadata
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from config import InputError
from datamodules.chitchat import load_chitchat
from datamodules.fingerprint import digest_files

_RIGHT = (
    "It must be `chitchat`, a .txt file, a .jsonl, .json or .parquet file with a `text` or `messages` "
    "column, a folder of .txt, .jsonl and .parquet files, or the name of a dataset on the Hugging "
    "Face Hub."
)
_COLUMNS = ("text", "messages")
_ROWS_AT_ONCE = 64
_PARQUET_BUFFER_BYTES = 2**20


class Corpus(NamedTuple):
    """A corpus that was found, and not yet read.

    fingerprint: changes whenever the text does.
    read: starts to read the documents; some may be empty. Holds one at a time, or a few.
    num_bytes: of the text, about; None where nobody knows.
    """

    fingerprint: str
    read: Callable[[], Iterator[str]]
    num_bytes: int | None


def open_corpus(name: str, cache_dir: Path) -> Corpus:
    """Finds a corpus.

    Args:
        name: `chitchat`, the path of a .txt, .jsonl or .parquet file or of a folder of them, or the
            name of a dataset on the Hub.
        cache_dir: where the digests of large files are kept.

    Raises:
        InputError: it is missing, of an unknown kind, or cannot be reached. `read` and its iterator
            raise it for what is no text.
    """
    path = Path(name)
    if name == "chitchat":
        version = importlib.metadata.version("chitchat-dataset")
        return Corpus(f"chitchat {version}", lambda: iter(load_chitchat()), None)
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix in _IN_FOLDERS and f.is_file())
        if not files:
            raise InputError(
                f"--corpus {name!r} is a folder without a .txt, .jsonl or .parquet file. {_RIGHT}"
            )
        return _open_files("folder", files, _IN_FOLDERS, cache_dir)
    if path.suffix in _LONE and path.is_file():
        return _open_files(path.suffix, [path], _LONE, cache_dir)
    if path.exists():
        raise InputError(f"--corpus {name!r} is of a kind that is not known. {_RIGHT}")
    if path.suffix in _LONE or not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name):
        raise InputError(f"--corpus {name!r} does not exist. {_RIGHT}")
    return _open_hub(name)


Reader = Callable[[Path], Iterator[str]]


def _open_files(
    kind: str, files: list[Path], readers: Mapping[str, Reader], cache_dir: Path
) -> Corpus:
    return Corpus(
        f"{kind} {digest_files(files, cache_dir)}",
        lambda: itertools.chain.from_iterable(readers[file.suffix](file) for file in files),
        sum(file.stat().st_size for file in files),
    )


def _read_whole(path: Path) -> Iterator[str]:
    with _utf8(path) as file:
        yield file.read()


def _read_paragraphs(path: Path) -> Iterator[str]:
    """What stands between blank lines, or the lines of a file that has none."""
    if not _has_paragraphs(path):
        with _utf8(path) as file:
            for line in file:
                yield from line.splitlines()
        return
    with _utf8(path) as file:
        for is_blank, lines in itertools.groupby(file, str.isspace):
            if not is_blank:
                yield "".join(lines).rstrip("\n")


def _has_paragraphs(path: Path) -> bool:
    with _utf8(path) as file:
        kinds = (is_blank for is_blank, _ in itertools.groupby(file, str.isspace))
        texts = itertools.islice((kind for kind in kinds if not kind), 2)
        return len(list(texts)) == 2


@contextlib.contextmanager
def _utf8(path: Path) -> Iterator[IO[str]]:
    try:
        with path.open(encoding="utf-8") as file:
            yield file
    except UnicodeDecodeError as error:
        raise InputError(f"--corpus: {path} is not UTF-8 text: {error}.") from error


def _read_jsonl(path: Path) -> Iterator[str]:
    return _documents(_json_lines(path), str(path))


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    is_empty = True
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                is_empty = False
                yield _json_object(line, path, f"line {number}")
    if is_empty:
        raise InputError(f"--corpus: {path} cannot be read as {path.suffix[1:]}: it holds no row.")


def _json_object(line: bytes, path: Path, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        # Without the position, which counts from the start of the line.
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise InputError(
            f"--corpus: {path} cannot be read as {path.suffix[1:]}: {where}: {reason}."
        ) from error
    return _as_row(row, path, where)


def _as_row(row: object, path: Path, where: str) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    raise InputError(
        f"--corpus: {path} cannot be read as {path.suffix[1:]}: {where} holds {str(row)[:40]!r}, "
        "which is no object with a `text` or `messages`."
    )


def _read_json(path: Path) -> Iterator[str]:
    """A list of rows, which is held whole, or a row a line."""
    with path.open("rb") as file:
        is_list = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    if not is_list:
        return _read_jsonl(path)
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"--corpus: {path} cannot be read as json: {error}.") from error
    if not rows:
        raise InputError(f"--corpus: {path} cannot be read as json: it holds no row.")
    objects = (_as_row(row, path, f"row {number}") for number, row in enumerate(rows, 1))
    return _documents(objects, str(path))


def _read_parquet(path: Path) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # OSError: what pyarrow says of a damaged file.
    try:
        with pq.ParquetFile(path, buffer_size=_PARQUET_BUFFER_BYTES, pre_buffer=False) as file:
            column = _column_of(file.schema_arrow.names, str(path))
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[column]):
                for value in batch.column(0).to_pylist():
                    yield _RENDER[column](value, str(path))
    except (pa.ArrowException, OSError) as error:
        reason = _first_line(error)
        raise InputError(f"--corpus: {path} cannot be read as parquet: {reason}") from error


_LONE: Mapping[str, Reader] = {
    ".txt": _read_paragraphs,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
_IN_FOLDERS: Mapping[str, Reader] = {
    ".txt": _read_whole,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


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
    column = _column_of(table.column_names, name)
    texts = table.select_columns([column])

    def read() -> Iterator[str]:
        for rows in texts.iter(_ROWS_AT_ONCE):
            for value in rows[column]:
                yield _RENDER[column](value, name)

    # `datasets` has no public name for the fingerprint that its own cache is keyed by.
    return Corpus(f"{name} {table._fingerprint}", read, texts.data.nbytes)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")


def _documents(rows: Iterable[dict[str, Any]], name: str) -> Iterator[str]:
    """The first row tells which column has the documents; others may lack it."""
    column = None
    for row in rows:
        column = column or _column_of(row, name)
        yield _RENDER[column](row.get(column), name)


def _column_of(names: Iterable[str], corpus: str) -> str:
    names = list(names)
    for column in _COLUMNS:
        if column in names:
            return column
    raise InputError(
        f"--corpus {corpus!r} has the columns {', '.join(names)}; it needs `text` or `messages`."
    )


def _as_text(text: object, name: str) -> str:
    if text is None:
        return ""
    if not isinstance(text, str):
        raise InputError(f"--corpus {name!r}: `text` must hold text, not {str(text)[:80]!r}.")
    return text


def _render_messages(messages: object, name: str) -> str:
    """A chat in UltraChat's schema, [{"role": "user", "content": "…"}, …], as A: and B: lines."""
    if messages is None:
        return ""
    if not isinstance(messages, list):
        raise _no_messages(messages, name)
    speakers: dict[str, str] = {}
    lines = []
    for message in messages:
        if not _is_message(message):
            raise _no_messages(message, name)
        speaker = speakers.setdefault(message["role"], chr(ord("A") + len(speakers) % 26))
        lines.append(f"{speaker}: {' '.join((message['content'] or '').split())}")
    return "\n".join(lines)


def _is_message(message: object) -> bool:
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
        return False
    has_text = message["content"] is None or isinstance(message["content"], str)
    return has_text and isinstance(message["role"], str)


def _no_messages(found: object, name: str) -> InputError:
    return InputError(
        f"--corpus {name!r}: `messages` must hold lists of {{role, content}}, "
        f"not {str(found)[:80]!r}."
    )


_RENDER: Mapping[str, Callable[[Any, str], str]] = {
    "text": _as_text,
    "messages": _render_messages,
}
