"""A worker that does not end; its module imports nothing that takes long, as that of a real one."""

import time
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tuning.display import StudyDisplay


def hang(display: "StudyDisplay") -> NoReturn:
    display.line("hangs")
    time.sleep(600)
    raise AssertionError
