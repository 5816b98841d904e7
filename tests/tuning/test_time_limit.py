"""A limit of wall time that ends whatever runs."""

import contextlib
import itertools
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

from tuning.time_limit import TimeoutReached, time_limit


def test_it_ends_a_wait_and_leaves_no_timer() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeoutReached), time_limit(time.monotonic() + 0.05, TimeoutReached()):
        threading.Event().wait(600)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_library_that_swallows_it_meets_it_again() -> None:
    swallowed = []

    def library() -> None:
        try:
            time.sleep(600)
        except TimeoutReached:
            swallowed.append(True)
        time.sleep(600)

    with pytest.raises(TimeoutReached), time_limit(time.monotonic() + 0.1, TimeoutReached()):
        library()
    assert swallowed == [True]


def test_what_ends_in_time_is_left_alone() -> None:
    with time_limit(time.monotonic() + 600, TimeoutReached()):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 500
    with time_limit(None, TimeoutReached()):
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_exception_of_the_clean_up_does_not_hide_it() -> None:
    def library() -> None:
        try:
            threading.Event().wait(600)
        finally:
            raise KeyError

    with pytest.raises(TimeoutReached), time_limit(time.monotonic() + 0.05, TimeoutReached()):
        library()


@pytest.mark.parametrize("line", range(8))
def test_a_ring_as_the_block_ends_leaves_no_timer(line: int) -> None:
    """Before each line that runs after the block: a timer left behind rings in other people's code."""
    after_block = time_limit.__wrapped__.__code__  # type: ignore[attr-defined]
    rung = []
    default = signal.signal(signal.SIGALRM, lambda *_: rung.append("before's"))
    lines = itertools.count()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code is not after_block:
            return None
        if event == "line" and next(lines) == line:
            rung.append("any")
            signal.raise_signal(signal.SIGALRM)
        return trace

    tracer, before = sys.gettrace(), signal.getsignal(signal.SIGALRM)
    raised = False
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(time_limit(time.monotonic() + 600, TimeoutReached()))
            sys.settrace(trace)
    except TimeoutReached:
        raised = True
    finally:
        sys.settrace(tracer)
        handler = signal.signal(signal.SIGALRM, default)
        left = signal.setitimer(signal.ITIMER_REAL, 0)
    assert left == (0.0, 0.0)
    assert handler is before
    assert raised == (rung == ["any"])
