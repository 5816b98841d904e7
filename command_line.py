"""What all command lines share: presets and files as defaults, one-line errors, exit codes."""

import argparse
import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn, cast

from config import PRESETS, Config, InputError
from tuning.run_options import is_first_process
from tuning.signals import Terminated, listen_for_signals

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

# Turns that an idle thread of OpenMP (GCC's, which PyTorch brings) spins for its next piece of work
# before it sleeps, in place of 300,000: about as quick on a quiet machine, several times as quick on
# one with other work, where the others would get the core that it spins on.
_SPINS = "10000"


def run(main: Callable[[], int]) -> NoReturn:
    """Runs a command and exits: 2 with one line for bad input, 1 with one for a full disk, 130 and 143
    for signals.

    Any other exception is a bug and keeps its traceback.

    Args:
        main: imports PyTorch, if at all: what is set here for its threads is read at that moment.
    """
    listen_for_signals()
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    try:
        sys.exit(main())
    except InputError as error:
        if is_first_process():
            print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt as interrupt:
        sys.exit(exit_code_of(interrupt))
    except Exception as error:
        reason = _full_disk(error)
        if reason is None:
            raise
        print(f"error: a file could not be written: {reason}.", file=sys.stderr)
        sys.exit(EXIT_FAILED)


def preset_default(arguments: list[str]) -> Config:
    """The defaults that `--preset NAME` among the arguments asks for."""
    name = peek(arguments, "--preset") or "default"
    # An unknown name is told by the parser that follows.
    return PRESETS[name]() if name in PRESETS else Config()


def exit_code_of(interrupt: KeyboardInterrupt) -> int:
    """130 for Ctrl-C, 143 for SIGTERM."""
    return EXIT_TERMINATED if isinstance(interrupt, Terminated) else EXIT_INTERRUPTED


def peek(arguments: list[str], option: str) -> str | None:
    """The value of an option among the arguments, before they are parsed in full.

    Args:
        arguments: with dashes or underscores in the options' names, as `tyro` takes both.
        option: its name with dashes.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(option, dest="value")
    try:
        known, _ = parser.parse_known_args([_with_dashes(argument) for argument in arguments])
    except argparse.ArgumentError:
        return None
    return cast("str | None", known.value)


def _with_dashes(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}"


def _full_disk(error: BaseException | None) -> str | None:
    """The system's words where an error says that a disk is full or a quota used up, else None.

    `torch.save` raises an error of its own over the system's; libraries in Rust have a text alone.
    """
    if isinstance(error, RuntimeError) and "inline_container" in str(error):
        error = error.__context__
    for code in (errno.ENOSPC, errno.EDQUOT):
        is_code = isinstance(error, OSError) and error.errno == code
        if is_code or f"(os error {code})" in str(error):
            return os.strerror(code)
    return None
