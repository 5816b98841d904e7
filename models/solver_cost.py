"""What the ways to solve `c = G(c)` cost, to choose the cheapest.

One application of F to n contexts takes a fixed time to start its layers and to read the weights,
and beyond some number of contexts a time for the arithmetic: a roofline (Williams et al., 2009).
The same device always gives the same choice, so that results can be repeated.

Shapes: B sequences, T tokens, C = context_dim.
"""

from typing import NamedTuple, Protocol, runtime_checkable

from torch import nn

from models.sweeps import LinearMemory


@runtime_checkable
class Layered(Protocol):
    """A network whose size can be told: a token passes through the matrices of its layers."""

    layers: nn.ModuleList


class Machine(NamedTuple):
    """launch: seconds to start a layer. sweep_launch, correction_launch: seconds that starting and
    judging a sweep of a window takes beside them, and starting a quasi-Newton step. bandwidth: bytes
    a second of weights and of contexts. rate: FLOP/s of large matrix products. correction_passes:
    times that a quasi-Newton step reads or writes each context."""

    launch: float
    sweep_launch: float
    correction_launch: float
    bandwidth: float
    rate: float
    correction_passes: int


MACHINES = {
    "cpu": Machine(
        launch=3e-5, sweep_launch=0.0, correction_launch=0.0,
        bandwidth=3e10, rate=1.2e11, correction_passes=40,
    ),
    # A scan's steps are replayed from a CUDA graph; a sweep is started kernel by kernel, and waited
    # for.
    "cuda": Machine(
        launch=4e-5, sweep_launch=9e-4, correction_launch=4.5e-4,
        bandwidth=2.5e12, rate=5e13, correction_passes=16,
    ),
}  # fmt: skip
"""By the type of a torch device. Measured, but for the GPU's bandwidth and rate: what starting costs was
measured on an H200, whose data sheet gives the others."""

_PASSES = 12
"""Times that an application reads or writes each context of a layer, beside the products."""
_BYTES = 4
_CORRECTION_WIDTH = 256
"""Entries that a quasi-Newton step adds to a context: its decays to the positions of a chunk."""
_EXPECTED_SWEEPS = 100
"""Until a trained network's contexts have settled, and with quasi-Newton steps."""
_EXPECTED_CORRECTED_SWEEPS = 10
_SMALLEST_WINDOW = 32


class Plan(NamedTuple):
    """window: positions to sweep together; 0 is a scan. correct: whether with quasi-Newton steps.
    window_cost: what a sweep of such a window costs, in steps of a scan."""

    window: int
    correct: bool
    window_cost: float


def plan(network: object, context_dim: int, num_rows: int, num_positions: int, device: str) -> Plan:
    """Chooses between a scan, sweeps of everything and sweeps of a moving window.

    Args:
        network: F; one that is not `Layered` counts as a single square layer.
        context_dim: C.
        num_rows: B.
        num_positions: T.
        device: type of a torch device; unknown ones count as `cuda`.
    """

    step = application_seconds(network, context_dim, num_rows, device)

    def sweep_seconds(window: int, correct: bool) -> float:
        num_contexts = num_rows * window
        correction = correction_seconds(context_dim, num_contexts, device) if correct else 0.0
        application = application_seconds(network, context_dim, num_contexts, device)
        return _machine(device).sweep_launch + application + correction

    windows = [num_positions]
    while windows[-1] > 2 * _SMALLEST_WINDOW:
        windows.append(windows[-1] // 2)
    costs = {(0, False): num_positions * step}
    for window in windows:
        for correct in (True, False) if isinstance(network, LinearMemory) else (False,):
            expected = _EXPECTED_CORRECTED_SWEEPS if correct else _EXPECTED_SWEEPS
            seconds = min(expected + 1, window) * sweep_seconds(window, correct)
            costs[window, correct] = num_positions / window * seconds
    window, correct = min(costs, key=lambda choice: costs[choice])
    return Plan(window, correct, sweep_seconds(max(window, 1), correct) / step)


def correction_seconds(context_dim: int, num_contexts: int, device: str) -> float:
    """Seconds of a quasi-Newton step on as many contexts."""
    machine = _machine(device)
    width = context_dim + _CORRECTION_WIDTH
    moving = _BYTES * machine.correction_passes * width * num_contexts / machine.bandwidth
    return machine.correction_launch + moving


def application_seconds(network: object, context_dim: int, num_contexts: int, device: str) -> float:
    """Seconds to apply F to as many contexts."""
    machine = _machine(device)
    num_weights, num_layers = context_dim**2, 1
    if isinstance(network, Layered):
        num_weights, num_layers = count_weights(network), len(network.layers)
    reading = _BYTES * num_weights / machine.bandwidth
    arithmetic = 2 * num_weights * num_contexts / machine.rate
    moving = _BYTES * _PASSES * num_layers * context_dim * num_contexts / machine.bandwidth
    return num_layers * machine.launch + max(reading, arithmetic) + moving


def count_weights(network: Layered) -> int:
    """Entries of the matrices that a token passes through."""
    return sum(weight.numel() for weight in network.layers.parameters() if weight.ndim == 2)


def _machine(device: str) -> Machine:
    return MACHINES.get(device, MACHINES["cuda"])
