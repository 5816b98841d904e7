"""What Ctrl-C and SIGTERM do, wherever in a study they arrive."""

import _thread
import os
import signal
import threading
from types import FrameType

_WHOLE = ("optuna", "sqlalchemy")
_DIVISIBLE = ("tuning", "lightning")
_RETRY_SECONDS = 0.02


class Terminated(KeyboardInterrupt):
    """SIGTERM, which then ends a run as Ctrl-C does."""


def listen_for_signals() -> None:
    """Makes SIGINT and SIGTERM raise `KeyboardInterrupt`, but never amid a write of the study."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _interrupt)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    if is_storing(frame):
        # Raised there, it could leave a transaction open, and with it a locked database.
        threading.Timer(_RETRY_SECONDS, _thread.interrupt_main, [signum]).start()
        return
    interrupt = Terminated if signum == signal.SIGTERM else KeyboardInterrupt
    raise interrupt(f"signal {signum} in process {os.getpid()}")


def is_storing(frame: FrameType | None) -> bool:
    """Whether the code that runs belongs to Optuna or its database, not to what these call."""
    while frame is not None:
        room = frame.f_globals.get("__name__", "").partition(".")[0]
        if room in _WHOLE or room in _DIVISIBLE:
            return room in _WHOLE
        frame = frame.f_back
    return False
