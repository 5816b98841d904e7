"""A phase's metrics as CSV, which a continued run goes on with."""

import csv
import io
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from datamodules.whole_files import write_bytes_whole


class MetricsFile(CSVLogger):
    """Lightning's CSVLogger, which would delete the rows of the run that it continues.

    Args:
        run_dir: a run's folder.
        phase: folder in it, of `metrics.csv`.
    """

    def __init__(self, run_dir: Path, phase: str) -> None:
        super().__init__(run_dir, name="", version=phase)
        self._writer: _ContinuedWriter | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._writer is None:
            self._writer = _ContinuedWriter(log_dir=self.log_dir)
            self._experiment = self._writer
        return self._writer


class _ContinuedWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as stream:
                self.metrics_keys = next(csv.reader(stream), [])

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        _write(path, fieldnames, _rows_of(path))


def drop_rows_after(path: Path, num_steps: int) -> None:
    """Leaves the rows of the first steps: the others are made again.

    Args:
        path: of a metrics.csv; nothing is done where there is none.
        num_steps: that the checkpoint has, from which training goes on.
    """
    if not path.is_file():
        return
    kept = [row for row in read_rows(path) if int(row["step"]) < num_steps]
    if kept:
        _write(path, list(kept[0]), kept)
    else:
        path.unlink()


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a metrics.csv, without half a row that a killed process may have left."""
    return [row for row in _rows_of(path) if (row.get("step") or "").isdigit()]


def _rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _write(path: Path, fieldnames: list[str], rows: list[dict[str, str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames)
    writer.writeheader()
    writer.writerows(rows)
    write_bytes_whole(path, text.getvalue().encode())
