"""The trajectory token by token, and the same recorded as a CUDA graph.

Shapes: B sequences, T tokens, C = context_dim, E = embed_dim.
"""

import weakref
from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn

from models.sweeps import Network

_Steps = Callable[[Tensor, Tensor], Tensor]

_RECORDED = 32
"""Positions that a graph holds: more start no quicker, and a text is a multiple of few."""
_WARM_UPS = 2
"""Runs before the recording, in which libraries take their memory and compilers compile."""
_KEPT = 4
"""Recordings of a network: rows of a full batch and of the last one, in training and validation."""


def scan(network: Network, embeddings_BTE: Tensor, initial_BC: Tensor) -> Tensor:
    """The contexts (B, T, C) token by token: what every other way is measured against.

    On a CUDA device, where no gradient is built, the steps are recorded once and replayed: the
    kernels of a step are so small that to start them one by one takes five times as long as to run
    them (CUDA graphs). The kernels are the same, and so are the contexts, to the last bit.

    Args:
        network: F.
        embeddings_BTE: (B, T, E).
        initial_BC: (B, C), the context left of the first position.
    """
    if not isinstance(network, nn.Module) or not _can_record(embeddings_BTE):
        return step_by_step(network, embeddings_BTE, initial_BC)

    def steps(embeddings_BTE: Tensor, initial_BC: Tensor) -> Tensor:
        return step_by_step(network, embeddings_BTE, initial_BC)

    return _recording(network, steps, embeddings_BTE, initial_BC).replay(embeddings_BTE, initial_BC)


def step_by_step(network: Network, embeddings_BTE: Tensor, initial_BC: Tensor) -> Tensor:
    """The scan as a loop of applications of F."""
    num_rows, num_positions, _ = embeddings_BTE.shape
    contexts_BTC = initial_BC.new_empty(num_rows, num_positions, initial_BC.shape[-1])
    context_BC = initial_BC
    for position in range(num_positions):
        context_BC = network(context_BC, embeddings_BTE[:, position])
        contexts_BTC[:, position] = context_BC
    return contexts_BTC


class Recording:
    """A scan of `_RECORDED` positions as a CUDA graph, with memory of its own to read and write.

    It reads the network's weights where they lie: what is written there in place, as optimisers and
    `load_state_dict` do, is what it computes with.

    Args:
        steps: computes contexts from embeddings and the initial context.
        embeddings_BTE: (B, T, E), a text of the rows, width, type and device that are recorded.
        initial_BC: (B, C), likewise.
    """

    def __init__(self, steps: _Steps, embeddings_BTE: Tensor, initial_BC: Tensor) -> None:
        num_rows, _, embed_dim = embeddings_BTE.shape
        self._embeddings = embeddings_BTE.new_zeros(num_rows, _RECORDED, embed_dim)
        self._initial = torch.zeros_like(initial_BC)
        self._graph = torch.cuda.CUDAGraph()
        device = embeddings_BTE.device
        # Without its cache: a weight that autocast has cast before would be replayed as it was then.
        with torch.autocast(
            device.type,
            dtype=torch.get_autocast_dtype(device.type),
            enabled=torch.is_autocast_enabled(device.type),
            cache_enabled=False,
        ):
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # untyped in torch
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):
                    steps(self._embeddings, self._initial)
            torch.cuda.current_stream(device).wait_stream(stream)
            # Other threads, such as a data loader's, may use the device meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._contexts = steps(self._embeddings, self._initial)

    def replay(self, embeddings_BTE: Tensor, initial_BC: Tensor) -> Tensor:
        """The contexts (B, T, C) of a text of any length."""
        contexts_BTC = initial_BC.new_empty(*embeddings_BTE.shape[:2], initial_BC.shape[-1])
        self._initial.copy_(initial_BC)
        parts = [torch.split(whole, _RECORDED, dim=1) for whole in (embeddings_BTE, contexts_BTC)]
        for embeddings, contexts in zip(*parts, strict=True):
            num_positions = embeddings.shape[1]
            self._embeddings[:, :num_positions].copy_(embeddings)
            self._graph.replay()
            contexts.copy_(self._contexts[:, :num_positions])
            self._initial.copy_(self._contexts[:, -1])
        return contexts_BTC


_recordings: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, Recording]] = (
    weakref.WeakKeyDictionary()
)


def _recording(
    network: nn.Module, steps: _Steps, embeddings_BTE: Tensor, initial_BC: Tensor
) -> Recording:
    """The network's recording for such a text; the ones that were not used for longest go."""
    kept = _recordings.setdefault(network, {})
    key = _key(network, embeddings_BTE, initial_BC)
    recording = kept.pop(key, None)
    if recording is None:
        while len(kept) >= _KEPT:
            del kept[next(iter(kept))]
        recording = Recording(steps, embeddings_BTE, initial_BC)
    kept[key] = recording
    return recording


def _key(network: nn.Module, embeddings_BTE: Tensor, initial_BC: Tensor) -> Hashable:
    """All that a recording depends on; weights by where they lie."""
    device = embeddings_BTE.device
    return (
        device,
        (len(embeddings_BTE), embeddings_BTE.shape[2], embeddings_BTE.dtype, initial_BC.dtype),
        torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type),
        torch.get_float32_matmul_precision(),
        # What is made in inference mode may not be written to outside of it.
        torch.is_inference_mode_enabled(),
        network._compiled_call_impl is not None,
        tuple(weight.data_ptr() for weight in (*network.parameters(), *network.buffers())),
    )


def _can_record(embeddings_BTE: Tensor) -> bool:
    return (
        embeddings_BTE.device.type == "cuda"
        and embeddings_BTE.shape[1] >= _RECORDED // 2
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.cuda.is_current_stream_capturing()
    )
