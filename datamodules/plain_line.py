"""Lines of a console as they are."""

from rich.console import Console


def print_line(console: Console, line: str) -> None:
    """Writes one line: no colours by guess, no wrapping of paths."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)
