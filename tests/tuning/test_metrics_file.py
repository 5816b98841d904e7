"""A metrics.csv that is gone on with."""

import csv
from pathlib import Path

from tuning.metrics_file import MetricsFile, drop_rows_after


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_rows_are_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "phase" / "metrics.csv"
    first = MetricsFile(tmp_path, "phase")
    for step in range(4):
        first.log_metrics({"loss": 0.1 * step}, step)
    first.save()
    with path.open("a") as stream:
        stream.write("0.4")  # half a row
    drop_rows_after(path, 2)
    again = MetricsFile(tmp_path, "phase")
    again.log_metrics({"loss": 0.25, "accuracy": 1.0}, 2)
    again.save()
    again.log_metrics({"loss": 0.5}, 3)
    again.finalize("success")
    rows = rows_of(path)
    assert [row["step"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["loss"] for row in rows] == ["0.0", "0.1", "0.25", "0.5"]
    assert [row["accuracy"] for row in rows] == ["", "", "1.0", ""]


def test_nothing_is_left_of_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path, "phase")
    logger.log_metrics({"loss": 1.0}, 0)
    logger.save()
    drop_rows_after(tmp_path / "phase" / "metrics.csv", 0)
    assert not (tmp_path / "phase" / "metrics.csv").exists()
    drop_rows_after(tmp_path / "phase" / "metrics.csv", 0)
