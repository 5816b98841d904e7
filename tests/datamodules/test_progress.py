"""What is told of a long reading."""

import io

import pytest
from rich.console import Console

from datamodules.progress import ByteProgress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(total: int | None, seconds: int, bytes_a_second: int) -> list[str]:
    clock, output = Clock(), io.StringIO()
    with ByteProgress("Reading a.txt", total, Console(file=output, width=40), clock) as progress:
        for _ in range(seconds):
            clock.now += 1.0
            progress.advance(bytes_a_second)
    return output.getvalue().splitlines()


def test_what_ends_soon_says_nothing() -> None:
    assert lines_of(10_000_000, seconds=2, bytes_a_second=5_000_000) == []


def test_a_line_tells_bytes_rate_and_time_left() -> None:
    first, *_ = lines_of(1_000_000_000, seconds=5, bytes_a_second=5_000_000)
    assert first.startswith("Reading a.txt: 15.0 of 1,000.0 MB, ")
    assert "5.0 MB/s" in first
    assert "0:03:17 left" in first


def test_lines_are_half_a_minute_apart() -> None:
    lines = lines_of(1_000_000_000, seconds=100, bytes_a_second=5_000_000)
    done = [float(line.split()[2]) for line in lines]
    assert done == [15.0, 165.0, 315.0, 465.0]


@pytest.mark.parametrize("total", [None, 1_000_000])
def test_unknown_or_exceeded_total_is_not_told(total: int | None) -> None:
    first, *_ = lines_of(total, seconds=5, bytes_a_second=5_000_000)
    assert first == "Reading a.txt: 15.0 MB, 5.0 MB/s"


def test_a_terminal_shows_a_bar_that_vanishes() -> None:
    clock, output = Clock(), io.StringIO()
    console = Console(file=output, force_terminal=True, width=100)
    with ByteProgress("Reading a.txt", 100_000_000, console, clock) as progress:
        progress.advance(1_000_000)
        assert output.getvalue() == ""
        clock.now += 4.0
        progress.advance(10_000_000)
        assert "Reading a.txt" in output.getvalue()
        assert "MB" in output.getvalue()
    assert output.getvalue().endswith("\x1b[2K")
