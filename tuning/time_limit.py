"""Bounds on wall time that hold wherever the time is spent."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from tuning.signals import is_indivisible

_AGAIN_SECONDS = 1.0
_RETRY_SECONDS = 0.02


class TimeoutReached(Exception):  # noqa: N818 - not an error: the time that was given is over
    """The call's time is over."""


class TrialTimeoutError(Exception):
    """A trial took longer than it may."""


@contextlib.contextmanager
def time_limit(deadline: float | None, error: Exception) -> Iterator[None]:
    """Raises `error` in the block once the time has come; at the latest when an operation returns.

    By a timer of the operating system, so that waiting for a file or a lock ends too, and not
    amid a write of the study. Raised again every second in case a library swallows it, and at the
    block's end where something else was raised meanwhile.

    Args:
        deadline: on the clock of `time.monotonic`, in seconds; None sets no limit.
        error: what is raised.
    """
    if deadline is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    has_come = has_ended = False

    def ring(signum: int, frame: FrameType | None) -> None:
        if is_indivisible(frame):
            signal.setitimer(signal.ITIMER_REAL, _RETRY_SECONDS, _AGAIN_SECONDS)
            return
        nonlocal has_come
        has_come = True
        if not has_ended:
            raise error

    before = signal.signal(signal.SIGALRM, ring)
    try:
        try:
            seconds = max(deadline - time.monotonic(), 1e-6)
            signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
            yield
        finally:
            has_ended = True
    finally:
        # What rings between the two, as the block ends, must not leave a timer that rings for ever.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if has_come:
            raise error
