"""A limit of wall time that ends whatever runs."""

import signal
import threading
import time

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
