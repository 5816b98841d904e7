"""How figures are written for a person."""


def format_rank(rank: float, context_dim: int) -> str:
    """`650.2/768 (84.7%)`."""
    return f"{rank:.1f}/{context_dim} ({100 * rank / context_dim:.1f}%)"


def format_duration(seconds: float) -> str:
    """`8.2 s`, `3 min 20 s`, `2 h 05 min`: two parts at most."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, whole_seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {whole_seconds:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
