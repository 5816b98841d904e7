"""Finished cells of the comparison, one JSON object a line, and the table that is made of them."""

import fcntl
import json
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from config import InputError

Settings = Mapping[str, Any]
"""What a cell is of: model, data, sizes and seed, as JSON has them. Equal settings, equal cell."""
Result = Mapping[str, Any]

_START = b'{"settings": '
"""Of every line: what ends without a line's end and begins otherwise was not written here."""
_DATA = ("corpus", "tokenizer", "vocab_size", "max_seq_length", "num_val_samples")
_HEADINGS = (
    "model", "parameters", "tokens", "trials", "seeds", "test ppl", "bits a byte",
    "training s", "tokens a s", "ms a token at 100", "at {position:,}",
)  # fmt: skip


class Cell(NamedTuple):
    """A training and what was measured of it."""

    settings: Settings
    result: Result


class Records:
    """The file of finished cells, for one process at a time.

    A line that a killed process left half written is cut off; all others stay as they are.

    Raises:
        InputError: another process has the file, it cannot be written, or it has a line that is
            no record.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"--records {path} is in use by another process.") from error
        except OSError as error:
            raise InputError(f"--records {path} cannot be written: {error.strerror}.") from error
        try:
            self.cells = read_cells(path)
        except InputError:
            self._file.close()
            raise
        self._file.truncate(path.read_bytes().rfind(b"\n") + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def find(self, settings: Settings) -> Cell | None:
        """The cell that was finished under these settings."""
        return next((cell for cell in self.cells if cell.settings == settings), None)

    def add(self, cell: Cell) -> None:
        """Stores a cell before it returns."""
        line = json.dumps({"settings": dict(cell.settings), "result": dict(cell.result)})
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.cells.append(cell)


def read_cells(path: Path) -> list[Cell]:
    """The cells of a file; a last line that was not finished is left out.

    Raises:
        InputError: there is no file, or a line is no record.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"--records {path} cannot be read: {error.strerror}.") from error
    cells = []
    for number, line in enumerate(lines, start=1):
        is_last = number == len(lines)
        if is_last and line[: len(_START)] == _START[: len(line)]:
            break
        try:
            record = json.loads(line)
            cells.append(Cell(record["settings"], record["result"]))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"--records {path}, line {number} is no record of a cell.") from error
    return cells


def table_lines(cells: Sequence[Cell], models: Sequence[str]) -> Iterator[str]:
    """Markdown tables, one for each data set: means and standard deviations over seeds.

    Args:
        cells: in any order.
        models: names in the order of the lines.
    """
    for data, of_data in _grouped(cells, _DATA).items():
        described = ", ".join(f"{name} {value}" for name, value in zip(_DATA, data, strict=True))
        yield f"{described}; test {of_data[0].result['test_tokens']:,} tokens"
        yield ""
        for position in sorted({cell.result["long_position"] for cell in of_data}):
            timed_there = [cell for cell in of_data if cell.result["long_position"] == position]
            yield from _table(timed_there, models, position)
        yield from _notes(of_data)


def _table(cells: Sequence[Cell], models: Sequence[str], position: int) -> Iterator[str]:
    yield _line(heading.format(position=position) for heading in _HEADINGS)
    yield _line(["---", *["---:"] * (len(_HEADINGS) - 1)])
    groups = _grouped(cells, sorted({key for cell in cells for key in cell.settings} - {"seed"}))
    for group in sorted(groups.values(), key=lambda group: _rank(group[0], models)):
        yield _line(_row(group))
    yield ""


def _grouped(cells: Iterable[Cell], names: Iterable[str]) -> dict[tuple[str, ...], list[Cell]]:
    groups: dict[tuple[str, ...], list[Cell]] = {}
    names = tuple(names)
    for cell in cells:
        key = tuple(json.dumps(cell.settings.get(name), sort_keys=True) for name in names)
        groups.setdefault(key, []).append(cell)
    return groups


def _rank(cell: Cell, models: Sequence[str]) -> tuple[float, float, int]:
    settings = cell.settings
    return settings["tokens"], settings.get("parameters") or 0, models.index(settings["model"])


def _row(cells: Sequence[Cell]) -> list[str]:
    settings, results = cells[0].settings, [cell.result for cell in cells]

    def mean(name: str, form: str) -> str:
        return format(statistics.mean(result[name] for result in results), form)

    def spread(name: str, form: str) -> str:
        values = [result[name] for result in results]
        deviation = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
        return f"{statistics.mean(values):{form}}{deviation}"

    has_window = results[0]["window"] is not None
    return [
        _named(settings),
        f"{results[0]['parameters']:,}{' n-grams' if settings['model'] == 'kneser-ney' else ''}",
        f"{settings['tokens']:,}",
        str(settings.get("trials", "-")),
        str(len(cells)) if "seed" in settings else "-",
        spread("test_ppl", ".2f"),
        spread("bits_per_byte", ".4f"),
        mean("seconds", ".1f"),
        mean("tokens_per_second", ",.0f"),
        mean("milliseconds_at_100", ".3f"),
        mean("milliseconds_at_long_position", ".3f") + ("*" if has_window else ""),
    ]


def _named(settings: Settings) -> str:
    optimizer = {"optimizer": settings["optimizer"]} if "optimizer" in settings else {}
    given = {**optimizer, **settings.get("ours", {}), **settings.get("baselines", {})}
    changed = ", ".join(f"{name}={value}" for name, value in given.items())
    return f"{settings['model']} ({changed})" if changed else str(settings["model"])


def _notes(cells: Sequence[Cell]) -> Iterator[str]:
    windows = {(cell.settings["model"], cell.result["window"]) for cell in cells}
    for model, window in sorted(pair for pair in windows if pair[1] is not None):
        yield f"`*` {model} sees the last {window} tokens alone; what is further back is lost to it."
    for machine in sorted({cell.result["machine"] for cell in cells}):
        yield f"Measured with {machine}."
    yield ""


def _line(words: Iterable[str]) -> str:
    return f"| {' | '.join(words)} |"
