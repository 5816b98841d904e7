"""How far a long reading is: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from datamodules.plain_line import print_line

_QUIET_SECONDS = 5.0
"""What ends sooner says nothing."""
_LINE_SECONDS = 30.0
_UPDATE_SECONDS = 0.1


class ByteProgress:
    """Shows bytes done, bytes a second and the time left of a task that takes some seconds.

    Args:
        title: what is done.
        total: bytes in all, about; None where nobody knows.
        console: where to write; standard error where it is not given.
        clock: seconds.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title = title
        self.console = console or Console(stderr=True)
        self.clock = clock
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            get_time=clock,
        )
        self._task = self._progress.add_task(title, total=total)
        self._pending = 0
        self._is_shown = False
        self._start = self._next_update = clock()
        self._next_line = self._start + _QUIET_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_shown:
            self._progress.stop()

    def advance(self, num_bytes: int) -> None:
        """Counts bytes that are done."""
        self._pending += num_bytes
        now = self.clock()
        if now < self._next_update:
            return
        self._next_update = now + _UPDATE_SECONDS
        self._progress.advance(self._task, self._pending)
        self._pending = 0
        if now >= self._next_line:
            self._show(now)

    def _show(self, now: float) -> None:
        if not self.console.is_terminal:
            self._next_line = now + _LINE_SECONDS
            print_line(self.console, self._line())
        elif not self._is_shown:
            self._is_shown = True
            self._progress.start()

    def _line(self) -> str:
        task = self._progress.tasks[0]
        done = f"{task.completed / 1e6:,.1f}"
        # More than all there is, where the total was an estimate.
        if task.total is not None and task.completed <= task.total:
            done += f" of {task.total / 1e6:,.1f}"
        speed = task.speed or task.completed / max(self.clock() - self._start, 1e-9)
        parts = [f"{self.title}: {done} MB", f"{speed / 1e6:.1f} MB/s"]
        if task.time_remaining:
            parts.append(f"{timedelta(seconds=int(task.time_remaining))} left")
        return ", ".join(parts)
