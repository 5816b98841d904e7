"""What the ways to solve `c = G(c)` cost, to choose the cheapest.

One application of F to n contexts takes a fixed time to start its layers and to read the weights,
and beyond some number of contexts a time for the arithmetic: a roofline (Williams et al., 2009).
The same device always gives the same choice, so that results can be repeated.

Shapes: B sequences, T tokens, C = context_dim.
"""

from typing import NamedTuple, Protocol, runtime_checkable


@runtime_checkable
class Sized(Protocol):
    """A network that tells its size: entries of its matrices, and layers."""

    num_weights: int
    num_layers: int


class Machine(NamedTuple):
    """launch: seconds to start a layer. bandwidth: bytes a second of weights and of contexts.
    rate: FLOP/s of large matrix products."""

    launch: float
    bandwidth: float
    rate: float


MACHINES = {
    "cpu": Machine(launch=4e-5, bandwidth=3e10, rate=1.2e11),
    "cuda": Machine(launch=6e-5, bandwidth=2.5e12, rate=2e14),
}
"""By the type of a torch device."""

_PASSES = 12
"""Times that an application reads or writes each context of a layer, beside the products."""
_BYTES = 4
_EXPECTED_SWEEPS = 16
"""Until a trained network's contexts have settled."""
_SMALLEST_WINDOW = 32


class Plan(NamedTuple):
    """window: positions to sweep together; 0 is a scan. window_cost: what applying F to such a
    window costs, in steps of a scan."""

    window: int
    window_cost: float


def plan(network: object, context_dim: int, num_rows: int, num_positions: int, device: str) -> Plan:
    """Chooses between a scan, sweeps of everything and sweeps of a moving window.

    Args:
        network: F; one that is not `Sized` counts as a single square layer.
        context_dim: C.
        num_rows: B.
        num_positions: T.
        device: type of a torch device; unknown ones count as `cuda`.
    """

    def seconds(positions: int) -> float:
        return application_seconds(network, context_dim, num_rows * positions, device)

    step = seconds(1)
    windows = [num_positions]
    while windows[-1] > 2 * _SMALLEST_WINDOW:
        windows.append(windows[-1] // 2)
    costs = {0: num_positions * step}
    for window in windows:
        num_windows = num_positions / window
        costs[window] = num_windows * min(_EXPECTED_SWEEPS + 1, window) * seconds(window)
    best = min(costs, key=lambda window: costs[window])
    return Plan(best, seconds(max(best, 1)) / step)


def application_seconds(network: object, context_dim: int, num_contexts: int, device: str) -> float:
    """Seconds to apply F to as many contexts."""
    machine = MACHINES.get(device, MACHINES["cuda"])
    num_weights, num_layers = context_dim**2, 1
    if isinstance(network, Sized):
        num_weights, num_layers = network.num_weights, network.num_layers
    reading = _BYTES * num_weights / machine.bandwidth
    arithmetic = 2 * num_weights * num_contexts / machine.rate
    moving = _BYTES * _PASSES * num_layers * context_dim * num_contexts / machine.bandwidth
    return num_layers * machine.launch + max(reading, arithmetic) + moving
