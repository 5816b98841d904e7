"""The optimisers of Phase 2: AdamW for all weights, or Muon for the matrices of hidden layers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from config import Phase2Optimizer
from models.short_convolution import ShortConvolution

_BETAS = (0.9, 0.99)
NOT_HIDDEN: tuple[type[nn.Module], ...] = (nn.Embedding, ShortConvolution)
"""Modules of ours whose own matrices Muon leaves to AdamW."""

Group = dict[str, Any]
"""Parameters and their rate and decay, as PyTorch's optimisers take them."""


class Part(NamedTuple):
    """A module, and the highest learning rate of what is trained of it."""

    module: nn.Module
    learning_rate: float


def phase2_optimizer(
    kind: Phase2Optimizer,
    parts: Sequence[Part],
    weight_decay: float,
    not_hidden: tuple[type[nn.Module], ...] = NOT_HIDDEN,
) -> Optimizer:
    """The optimiser of what is trained of some modules.

    Args:
        kind: as `Config` has it.
        parts: modules that have no weight in common.
        weight_decay: decoupled, of matrices; all else has none.
        not_hidden: modules whose own matrices Muon leaves to AdamW: embeddings, which are the output
            weights too, and what is multiplied with no vector.
    """
    if kind == "adamw":
        groups = [
            group for part in parts for group in _groups(part, _trained(part.module), weight_decay)
        ]
        return AdamW(groups, betas=_BETAS, fused=True)
    hidden: list[Group] = []
    others: list[Group] = []
    for part in parts:
        matrices = list(_hidden_matrices(part.module, not_hidden))
        known = set(map(id, matrices))
        rest = [weight for weight in _trained(part.module) if id(weight) not in known]
        hidden += _groups(part, matrices, weight_decay)
        others += _groups(part, rest, weight_decay)
    return MuonWithAdamW(hidden, others)


class MuonWithAdamW(Optimizer):
    """Muon for some parameters and AdamW for the others, as one: Lightning schedules a single one.

    Muon makes all directions of a matrix's momentum equally large before it takes the step, so that
    rare ones are learnt as soon as frequent ones (Jordan et al., 2024,
    https://kellerjordan.github.io/posts/muon/). Its step is scaled to the size of AdamW's, so that
    rates and decays mean the same for both (Liu et al., arXiv 2502.16982).

    Args:
        hidden: groups of matrices, which are Muon's.
        others: groups of AdamW.
    """

    def __init__(self, hidden: Sequence[Group], others: Sequence[Group]) -> None:
        self._muon = Muon(hidden, adjust_lr_fn="match_rms_adamw")
        self._adamw = AdamW(others, betas=_BETAS, fused=True)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of both; what the closure returns, where there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._muon.step()  # type: ignore[no-untyped-call]  # PyTorch's
        self._adamw.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Gives both the groups and the state that schedules, checkpoints and devices see."""
        num_hidden = len(self._muon.param_groups)
        self._muon.param_groups = self.param_groups[:num_hidden]
        self._adamw.param_groups = self.param_groups[num_hidden:]
        self._muon.state = self._adamw.state = self.state


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in module.parameters() if weight.requires_grad]


def _hidden_matrices(
    module: nn.Module, not_hidden: tuple[type[nn.Module], ...]
) -> Iterator[nn.Parameter]:
    for layer in module.modules():
        if not isinstance(layer, not_hidden):
            own = layer.parameters(recurse=False)
            yield from (weight for weight in own if weight.requires_grad and weight.ndim == 2)


def _groups(part: Part, weights: Sequence[nn.Parameter], weight_decay: float) -> list[Group]:
    """Matrices, which decay, and all else; without what is empty."""
    matrices = [weight for weight in weights if weight.ndim > 1]
    others = [weight for weight in weights if weight.ndim <= 1]
    return [
        {"params": params, "lr": part.learning_rate, "weight_decay": decay}
        for params, decay in ((matrices, weight_decay), (others, 0.0))
        if params
    ]
