"""What Ctrl-C and SIGTERM do, wherever in a study they arrive."""

import os
import signal
import threading
import time
from types import FrameType

_WHOLE = ("optuna", "sqlalchemy", "tensorboard")
_DIVISIBLE = ("tuning", "lightning")
_PASSED_OVER = "tuning.storage"
"""Wraps Optuna's transactions and is called amid them: as indivisible as what called it."""
_RETRY_SECONDS = 0.02

_put_off: threading.Timer | None = None
_waits = False
"""Whether the timer of a signal that was put off still runs."""
_raised: KeyboardInterrupt | None = None


class Terminated(KeyboardInterrupt):
    """SIGTERM, which then ends a run as Ctrl-C does."""


def listen_for_signals() -> None:
    """Makes SIGINT and SIGTERM raise `KeyboardInterrupt`, but never amid a write of the study or log."""
    global _raised
    _raised = None
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _interrupt)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    global _put_off, _waits, _raised
    if is_indivisible(frame):
        # Raised there, it could leave a transaction open, and with it a locked database, or a log's
        # queue that waits for ever for what was half put in.
        if not _waits:
            _waits = True
            _put_off = threading.Timer(_RETRY_SECONDS, _send_again, [signum])
            _put_off.start()
        return
    if _put_off is not None:
        # Many signals amid one write are one: no second exception in the clean-up of the first.
        _put_off.cancel()
    _put_off, _waits = None, False
    interrupt = Terminated if signum == signal.SIGTERM else KeyboardInterrupt
    _raised = interrupt(f"signal {signum} in process {os.getpid()}")
    raise _raised


def _send_again(signum: int) -> None:
    global _waits
    _waits = False
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signum)


def raise_if_lost() -> None:
    """Raises a signal's exception again that was raised since this was last called.

    What runs between may have swallowed it, or have raised another one while it cleaned up; in a
    `finally`, this takes the other one's place, which stays its context.
    """
    global _raised
    raised, _raised = _raised, None
    if raised is not None:
        raise raised


def await_put_off() -> None:
    """Has a signal that was put off, if one was, raise its exception here."""
    if _put_off is not None:
        _put_off.join()


def is_indivisible(frame: FrameType | None) -> bool:
    """Whether the code that runs must not be interrupted by an exception.

    That is a finaliser and all that it calls, which would swallow it, and what belongs to Optuna, its
    database or TensorBoard's log, not to what these call.
    """
    whole: bool | None = None
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        name = frame.f_globals.get("__name__", "")
        room = name.partition(".")[0]
        if whole is None and room in _WHOLE:
            whole = True
        elif whole is None and room in _DIVISIBLE and name != _PASSED_OVER:
            whole = False
        frame = frame.f_back
    return bool(whole)


def sleep(seconds: float) -> None:
    """Waits where a signal may end the wait, though Optuna called for it."""
    time.sleep(seconds)
