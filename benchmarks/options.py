"""The command line of a benchmark: its own options, a Config's beside them, errors in one line."""

from collections.abc import Callable
from typing import Annotated, Any, NoReturn, TypeVar

import command_line
from config import Config

T = TypeVar("T")


def parse(
    options: type[T],
    description: str | None,
    config: Config = Config(),  # noqa: B008  # frozen
) -> tuple[T, Config]:
    """Reads the command line; prints help or a usage error and exits as `tyro` does.

    Args:
        options: dataclass of the benchmark's own options, of which none is called as one of Config.
        description: the module's docstring, which `--help` prints.
        config: defaults of the other options.

    Raises:
        InputError: an option is outside its range.
    """

    def both(options: Any, config: Config = config) -> object:
        return options, config

    given: tuple[T, Config] = _read(both, (options, Config), description)
    return given


def parse_alone(options: type[T], description: str | None) -> T:
    """As `parse`, of a benchmark that takes no Config."""

    def alone(options: Any) -> object:
        return options

    given: T = _read(alone, (options,), description)
    return given


def parse_config(description: str | None, config: Config) -> Config:
    """As `parse`, of a benchmark whose options are all a Config's."""

    def alone(config: Config = config) -> object:
        return config

    given: Config = _read(alone, (Config,), description)
    return given


def run(main: Callable[[], int | None]) -> NoReturn:
    """Runs a benchmark and exits: 2 with one line for bad input, 130 and 143 for signals."""
    command_line.run(lambda: main() or 0)


def _read(function: Callable[..., object], kinds: tuple[type, ...], description: str | None) -> Any:
    """What a function returns of its arguments, dataclasses whose fields are the options."""
    # Here: a machine with a GPU may be without it, and what runs there needs `run` alone.
    import tyro

    # Arguments of a function, and without a name: fields are then options without a prefix, and what
    # a dataclass raises is passed on as it is, not told in a box of many lines.
    for name, kind in zip(function.__annotations__, kinds, strict=False):
        function.__annotations__[name] = Annotated[kind, tyro.conf.arg(name="")]
    return tyro.cli(function, description=description)
