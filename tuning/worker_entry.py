"""Where a worker's process begins. It imports nothing that takes long before signals are answered."""

import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TextIO, cast

if TYPE_CHECKING:
    from tuning.display import StudyDisplay

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Blocked until the worker answers them."""
_LINE_WIDTH = 200

Work = Callable[["StudyDisplay"], NoReturn]
"""A worker's part, which ends its process; is told where to write."""


def enter(work: Work, lines: Connection) -> None:
    """Begins to work; until `work` answers signals itself, one ends the process without a word."""
    os.setsid()  # a terminal's Ctrl-C reaches the parent alone, which passes it on
    for signum in SIGNALS:
        signal.signal(signum, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    import torch
    from rich.console import Console

    from tuning.display import StudyDisplay

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    console = Console(file=cast(TextIO, _Lines(lines)), width=_LINE_WIDTH)
    work(StudyDisplay(console))


class _Lines:
    """A text file whose lines go through a pipe; the worker ends when nobody reads them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.rest = ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            try:
                self.connection.send(line)
            except OSError:
                signal.raise_signal(signal.SIGTERM)
        return len(text)

    def flush(self) -> None:
        pass


def _end(signum: int, frame: FrameType | None) -> None:
    # Not by an exception, which would leave what is being imported half way, and tell of it.
    os._exit(128 + signum)
