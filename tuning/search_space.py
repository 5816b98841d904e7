"""What a study tunes: names of `Config` fields and their ranges."""

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution

from config import Config, InputError


class Range(NamedTuple):
    """Both ends can be drawn; `log` draws evenly on a logarithmic scale."""

    low: float
    high: float
    log: bool


TUNABLE: Mapping[str, Range] = MappingProxyType(
    {
        # The diversity loss starts ten times larger than the residual, and the weights between
        # which they change places span two decades.
        "dist_reg_weight": Range(0.01, 0.99, log=True),
        "contraction_weight": Range(1e-3, 1e-1, log=True),
        "neighbour_share": Range(0.0, 1.0, log=False),
        "phase1_learning_rate": Range(3e-5, 3e-3, log=True),
        # 0 is a value of its own: the statistics of the batch alone.
        "ema_momentum": Range(0.0, 0.999, log=False),
        "phase1_convergence_threshold": Range(1e-3, 1e-1, log=True),
    }
)


@dataclass(frozen=True)
class SearchSpace:
    """Ranges by the name of the `Config` field."""

    ranges: Mapping[str, Range]

    def suggest(self, trial: optuna.Trial) -> dict[str, float]:
        """Values of a trial by field name."""
        return {
            name: trial.suggest_float(name, bounds.low, bounds.high, log=bounds.log)
            for name, bounds in self.ranges.items()
        }

    def distributions(self) -> dict[str, BaseDistribution]:
        return {
            name: FloatDistribution(*bounds[:2], log=bounds.log)
            for name, bounds in self.ranges.items()
        }

    def default_of(self, config: Config) -> dict[str, float] | None:
        """The configuration's own values; None where one is outside its range."""
        values = {name: float(getattr(config, name)) for name in self.ranges}
        inside = all(
            self.ranges[name].low <= value <= self.ranges[name].high
            for name, value in values.items()
        )
        return values if inside else None

    def grid(self, num_points: int) -> dict[str, list[float]]:
        """Values of each parameter, evenly spaced on its scale: at most `num_points` points in all,
        but two a parameter."""
        num_values = max(2, math.floor(num_points ** (1 / len(self.ranges)) + 1e-9))
        return {name: _spaced(bounds, num_values) for name, bounds in self.ranges.items()}

    def describe(self) -> dict[str, str]:
        """`0.01:0.99:log` by name, as `--range` takes it."""
        return {
            name: f"{bounds.low!r}:{bounds.high!r}:{_scale(bounds)}"
            for name, bounds in self.ranges.items()
        }


DEFAULT_SPACE = SearchSpace({"dist_reg_weight": TUNABLE["dist_reg_weight"]})


def parse_search_space(tune: str, overrides: Sequence[str] = ()) -> SearchSpace:
    """Reads `--tune` and every `--range`.

    Args:
        tune: names, separated by commas.
        overrides: `name=low:high`, `name=low:high:log` or `name=low:high:linear`.

    Raises:
        InputError: a name that cannot be tuned, or a range that is none.
    """
    ranges: dict[str, Range] = {}
    for name in map(str.strip, tune.split(",")):
        _check_tunable("--tune", name)
        if name in ranges:
            raise InputError(f"--tune names {name!r} twice; once is enough.")
        ranges[name] = TUNABLE[name]
    overridden = set()
    for text in overrides:
        name, bounds = _parse_range(text)
        if name not in ranges:
            raise InputError(
                f"--range {text!r} is of a parameter that is not tuned; add it to --tune."
            )
        if name in overridden:
            raise InputError(f"--range {text!r} is the second one of {name}; give one.")
        overridden.add(name)
        ranges[name] = bounds
    return SearchSpace(ranges)


def _parse_range(text: str) -> tuple[str, Range]:
    def refuse(reason: str) -> InputError:
        return InputError(
            f"--range {text!r} {reason}; it must be like phase1_learning_rate=1e-4:1e-2:log."
        )

    name, equals, given = text.partition("=")
    parts = given.split(":")
    if not equals or len(parts) not in (2, 3):
        raise refuse("is not name=low:high")
    _check_tunable("--range", name)
    scale = parts[2] if len(parts) == 3 else _scale(TUNABLE[name])
    if scale not in ("log", "linear"):
        raise refuse(f"has the scale {scale!r}, which is neither log nor linear")
    try:
        low, high = float(parts[0]), float(parts[1])
    except ValueError:
        raise refuse("does not have two numbers") from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise refuse("has an end that is not finite")
    if low >= high:
        raise refuse("has a lower end that is not below the upper one")
    if scale == "log" and low <= 0:
        raise refuse("has a logarithmic scale and an end that is not positive")
    for end in (low, high):
        try:
            dataclasses.replace(Config(), **{name: end})  # type: ignore[arg-type] # of each field's own type
        except InputError as error:
            raise InputError(f"--range {text!r} has the end {end:g}, but: {error}") from None
    return name, Range(low, high, log=scale == "log")


def _check_tunable(option: str, name: str) -> None:
    if name not in TUNABLE:
        near = difflib.get_close_matches(name, TUNABLE, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(
            f"{option}: {name!r} cannot be tuned{hint}; these can: {', '.join(TUNABLE)}."
        )


def _scale(bounds: Range) -> str:
    return "log" if bounds.log else "linear"


def _spaced(bounds: Range, num_values: int) -> list[float]:
    steps = [step / (num_values - 1) for step in range(num_values)]
    if bounds.log:
        ratio = bounds.high / bounds.low
        inner = [bounds.low * ratio**step for step in steps]
    else:
        inner = [bounds.low + (bounds.high - bounds.low) * step for step in steps]
    return [bounds.low, *inner[1:-1], bounds.high]  # not a rounding error outside
