"""Tokens a second of Phase 2's steps, their share of what products reach, and their memory."""

import dataclasses
import functools
import statistics
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.devices import gib, peak_since_start, seconds_of, start_peak
from benchmarks.gpu_parts.bench import SEQUENCE, Bench
from benchmarks.gpu_parts.training import product_rate, yes
from benchmarks.text import text_rows
from config import Config, full
from lightning_modules.token_prediction_module import TokenPredictionModule
from models.fixed_point import solve_rows
from models.gated_network import GatedContextNetwork
from models.solver_cost import count_weights


def phase2(bench: Bench) -> Iterator[str]:
    """The table of Phase 2's steps."""
    sizes = bench.sizes
    square = product_rate([(sizes.product,) * 3], bench.device)
    yield f"bf16 product of {sizes.product} x {sizes.product}: {square / 1e12:.4g} TFLOP/s"
    yield "    C  contexts  compiled   tokens/s  ms a step  TFLOP/s  of square     GiB"
    # Compiled steps last: where there is no compiler all the other lines are there.
    for compiled in (False, True) if bench.options.compile else (False,):
        for width in sizes.widths:
            for frozen in (True, False):
                config = sized_as_full(width, freeze_context=frozen)
                yield (
                    f"{width:5}  {'frozen' if frozen else 'trained':8}  {yes(compiled):8} "
                    f"{_line(bench, config, compiled, square)}"
                )


def sized_as_full(width: int, *, freeze_context: bool) -> Config:
    """`--preset full` with `width` entries of everything, and without copying."""
    return dataclasses.replace(
        full(), context_dim=width, embed_dim=width, head_embed_dim=width, head_hidden_dim=width,
        freeze_context=freeze_context, copy_window=0,
    )  # fmt: skip


class Phase2Step:
    """Contexts where they are not kept, loss, backward, clipping and the optimiser.

    backend: of torch.compile, for F, and for the loss forward and backward; None does not compile.
    """

    def __init__(self, module: TokenPredictionModule, *, backend: str | None) -> None:
        self.module = module
        self.loss = module.loss_of_tokens
        if backend is not None:
            module.network.compile(backend=backend)
            self.loss = torch.compile(module.loss_of_tokens, backend=backend, dynamic=False)
        self.weights = [weight for weight in module.parameters() if weight.requires_grad]
        self.optimizer = module.new_optimizer()

    def __call__(self, tokens_BT: Tensor, kept_BTC: Tensor) -> None:
        """Trains on rows (B, T), whose frozen contexts are kept, (B, T, C)."""
        config = self.module.config
        with torch.autocast(tokens_BT.device.type, torch.bfloat16):
            contexts_BTC = kept_BTC if config.freeze_context else self.contexts(tokens_BT)
            loss, _ = self.loss(contexts_BTC, tokens_BT)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.weights, config.gradient_clip)
        self.optimizer.step()

    @torch.no_grad()
    def contexts(self, tokens_BT: Tensor) -> Tensor:
        """Exact contexts of rows (B, T), (B, T, C)."""
        return solve_rows(self.module.network, self.module.network.embed(tokens_BT))


def new_module(bench: Bench, config: Config) -> TokenPredictionModule:
    """A module as Phase 2 starts it, on the device, in training mode; F as it was drawn."""
    torch.manual_seed(config.random_seed)
    module = TokenPredictionModule(config, len(bench.text.counts))
    assert isinstance(module.network, GatedContextNetwork)
    module.network.set_token_counts(bench.text.counts)
    module.head.set_token_counts(bench.text.counts)
    return module.to(bench.device).train()


def training_flops(module: TokenPredictionModule, tokens_BT: Tensor) -> int:
    """FLOPs of a step that PyTorch counts: the loss, forward and backward, and contexts, where they
    are not kept, from one application of F."""
    contexts = torch.zeros(*tokens_BT.shape, module.config.context_dim, device=tokens_BT.device)
    with FlopCounterMode(display=False) as counter:
        loss, _ = module.loss_of_tokens(contexts, tokens_BT)
        torch.autograd.backward(loss)
    module.zero_grad()
    solved = 0 if module.config.freeze_context else 2 * count_weights(module.network)
    return int(counter.get_total_flops()) + solved * tokens_BT.numel()


def _line(bench: Bench, config: Config, compiled: bool, square: float) -> str:
    """Figures of one kind of step."""
    torch.compiler.reset()
    num_rows = bench.sizes.step_tokens // SEQUENCE
    tokens_BT = text_rows(bench.text.train, num_rows, SEQUENCE).to(bench.device)
    module = new_module(bench, config)
    # Of one row: parts of a large batch are computed again, which is not what a step needs.
    flops = num_rows * training_flops(module, tokens_BT[:1])
    start_peak(bench.device)
    step = Phase2Step(module, backend=bench.sizes.backend if compiled else None)
    try:
        kept = step.contexts(tokens_BT) if config.freeze_context else tokens_BT
        seconds = _step_seconds(step, bench, tokens_BT, kept)
    except torch.OutOfMemoryError:
        return "too little memory on the device"
    rate = flops / seconds
    return (
        f"{tokens_BT.numel() / seconds:10,.0f} {1e3 * seconds:10.2f} {rate / 1e12:8.4g} "
        f"{rate / square:9.1%} {gib(peak_since_start(bench.device)):>7}"
    )


def _step_seconds(step: Phase2Step, bench: Bench, tokens_BT: Tensor, kept: Tensor) -> float:
    """Median seconds of a step; the first three, which compile and warm up, do not count."""
    for _ in range(3):
        step(tokens_BT, kept)
    once = functools.partial(step, tokens_BT, kept)
    return statistics.median(seconds_of(once, bench.device) for _ in range(3 * bench.sizes.steps))
