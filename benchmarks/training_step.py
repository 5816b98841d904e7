"""A training step of Phase 1 in a bare loop: no Lightning, no logging, no study.

Shapes: B rows, T tokens, V = vocabulary, C = context_dim, E = embed_dim.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.solving import AnyNetwork
from config import Config
from lightning_modules.schedule import with_warmup
from lightning_modules.settings import context_network, gate_parameters, phase1_parameters
from models.contraction import EVERY, contraction, lasting_disturbance
from models.diversity import DIVERSITY_LOSSES, RunningStatistics
from models.gated_network import GatedContextNetwork
from models.sweeps import quasi_newton_step, residuals, sweep

Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Flops(NamedTuple):
    """A training token's FLOPs in one sweep.

    formula: 6 L (C + E)². exact: 6 a weight, less the gradient by the first layer's inputs.
    What the loss asks for besides, which neither has. diversity: the products of the second moments,
    forward and backward. contraction: an application of F at every sixteenth position. The
    quasi-Newton step, and what is not a product, is left out.
    """

    formula: int
    exact: int
    diversity: int
    contraction: int

    @property
    def whole_loss(self) -> int:
        """What a step cannot do without."""
        return self.exact + self.diversity + self.contraction


class Phase1Step:
    """Forward, loss with diversity, backward, clipping and fused Adam: what a step cannot leave out.

    bf16: autocast of the layers' products. backend: of torch.compile, for forward and backward;
    None does not compile.
    """

    def __init__(
        self, network: AnyNetwork, config: Config, *, bf16: bool, backend: str | None = None
    ) -> None:
        self.network, self.config, self.bf16 = network, config, bf16
        network.embedding.requires_grad_(False)
        groups = phase1_parameters(network, config.phase1_learning_rate)
        self.weights = [weight for group in groups for weight in group["params"]]
        self.device = self.weights[0].device
        statistics = RunningStatistics(config.context_dim, config.ema_momentum)
        self.statistics = statistics.to(self.device)
        self.diversity = DIVERSITY_LOSSES[config.diversity_loss]
        self.optimizer = torch.optim.Adam(groups, lr=config.phase1_learning_rate, fused=True)
        self.loss: Loss = self._loss
        if backend is not None:
            self.loss = torch.compile(self._loss, backend=backend, dynamic=False)

    def __call__(
        self, tokens_BT: Tensor, contexts_BTC: Tensor, *, with_gates: bool = True
    ) -> Tensor:
        """Trains on one sweep over the rows; returns the next contexts (B, T, C).

        with_gates: False in the first sweep, whose contexts are zero: gates have no part in it.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss, next_BTC = self.loss(tokens_BT, contexts_BTC)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        if not with_gates:
            for gate in gate_parameters(self.network):
                gate.grad = None
        if self.config.gradient_clip:
            torch.nn.utils.clip_grad_norm_(self.weights, self.config.gradient_clip)
        self.optimizer.step()
        return next_BTC.to(contexts_BTC.dtype)

    def _loss(self, tokens_BT: Tensor, contexts_BTC: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.config.dist_reg_weight
        embeddings = self.network.embed(tokens_BT)
        swept = sweep(self.network, contexts_BTC, embeddings)
        # In the module's order, in which gradients are summed: weights come out equal to the last bit.
        convergence = residuals(contexts_BTC, swept).mean()
        diversity = self.diversity(self.statistics(swept))
        if self.config.contraction_weight > 0:
            remaining = contraction(self.network, contexts_BTC, embeddings, swept)
            lasting = lasting_disturbance(remaining)
            convergence = convergence + self.config.contraction_weight * lasting
        loss = (1 - weight) * convergence + weight * diversity
        with torch.no_grad():
            following = quasi_newton_step(self.network, contexts_BTC, swept.detach(), embeddings)
        return loss, following


def new_network(config: Config, train_V: Tensor, device: torch.device) -> AnyNetwork:
    """F with its gates set from the counts of the training text's tokens (V,)."""
    torch.manual_seed(config.random_seed)
    network = context_network(config, len(train_V))
    if isinstance(network, GatedContextNetwork):
        network.set_token_counts(train_V)
    return network.to(device)


def train(network: AnyNetwork, config: Config, rows_BT: Tensor) -> None:
    """Phase 1 in single precision, on rows in their order; contexts are kept between sweeps."""
    step = Phase1Step(network, config, bf16=False)
    batches = torch.split(rows_BT.to(step.device), config.batch_size)
    contexts = [step.weights[0].new_zeros(*batch.shape, config.context_dim) for batch in batches]
    factor = with_warmup(
        config.lr_schedule, len(batches) * config.phase1_max_epochs, config.warmup_ratio
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(step.optimizer, factor)
    for epoch in range(config.phase1_max_epochs):
        for index, batch in enumerate(batches):
            contexts[index] = step(batch, contexts[index], with_gates=epoch > 0)
            scheduler.step()


def flops(config: Config) -> Flops:
    """Counts a configuration's FLOPs a token and sweep."""
    context_dim, num_inputs = config.context_dim, config.context_dim + config.embed_dim
    outputs = [num_inputs] * (config.num_layers - 1) + [context_dim]
    num_weights = sum(outputs) * num_inputs
    exact = 6 * num_weights - 2 * outputs[0] * num_inputs
    return Flops(
        formula=6 * config.num_layers * num_inputs**2,
        exact=exact,
        diversity=4 * context_dim**2,
        contraction=exact // EVERY if config.contraction_weight > 0 else 0,
    )
