"""One batch through both phases, and what must hold of it."""

import copy
import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor

from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import metric_names as names
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.token_prediction_module import TokenPredictionModule
from models.fixed_point import solve_rows
from tuning.training import NO_LOGGER, fit_phase

_NUM_SWEEPS = 2
"""The first sweep reads contexts of zeros, which give the weights that read them no gradient."""

_UNCHANGED = 1e-3
"""Contexts are solved to a root mean square of 1e-4, in as many sweeps as the whole text takes: what
the solver leaves of the past may differ by that much."""


class Check(NamedTuple):
    """What was checked, whether it holds, and the figure behind it."""

    name: str
    holds: bool
    figure: str


def run_checks(config: Config) -> Iterator[Check]:
    """Trains one batch in each phase and yields the checks as they are made.

    Args:
        config: sizes of the model; of the data one batch is taken.

    Raises:
        InputError: the corpus cannot be used.
    """
    config = dataclasses.replace(
        config,
        num_samples=config.batch_size,
        num_val_samples=config.batch_size,
        phase1_max_epochs=_NUM_SWEEPS,
        phase2_epochs=1,
    )
    datamodule = TokenDataModule(config)
    datamodule.setup()
    L.seed_everything(config.random_seed, verbose=False)
    tokens = datamodule.train_rows.tokens
    phase1 = FixedPointModule(config, datamodule.vocab_size)
    yield from _check_phase(phase1, datamodule, names.PHASE1_TRAIN_LOSS, _NUM_SWEEPS, "Phase 1")
    yield _shape("contexts", _contexts(phase1, tokens), (*tokens.shape, config.context_dim))
    yield _causality(
        "contexts", _contexts(phase1, tokens), _contexts(phase1, _last_changed(tokens))
    )

    phase2 = TokenPredictionModule.from_phase1(phase1, datamodule.vocab_size)
    yield from _check_phase(phase2, datamodule, names.TRAIN_LOSS, 1, "Phase 2")
    phase2.eval()
    with torch.no_grad():
        logits, changed = phase2(tokens), phase2(_last_changed(tokens))
    yield _shape("logits", logits, (*tokens.shape, datamodule.vocab_size))
    yield _causality("logits", logits, changed)


def _check_phase(
    module: L.LightningModule,
    datamodule: TokenDataModule,
    loss_name: str,
    num_epochs: int,
    title: str,
) -> Iterator[Check]:
    before = copy.deepcopy(module.state_dict())
    trainer = fit_phase(
        module,
        datamodule,
        config=datamodule.config,
        num_epochs=num_epochs,
        logger=NO_LOGGER,
        callbacks=[],
    )
    loss = float(trainer.callback_metrics[loss_name])
    yield Check(f"{title}: the loss is finite", math.isfinite(loss), f"{loss:.4f}")
    trained = [name for name, p in module.named_parameters() if p.requires_grad]
    after = module.state_dict()
    still = [name for name in trained if torch.equal(before[name].cpu(), after[name].cpu())]
    figure = f"{len(trained) - len(still)} of {len(trained)}{f', not {still}' if still else ''}"
    yield Check(f"{title}: the weights move", not still, figure)


def _contexts(phase1: FixedPointModule, tokens_BT: Tensor) -> Tensor:
    with torch.no_grad():
        return solve_rows(phase1.network, phase1.network.embed(tokens_BT))


def _last_changed(tokens_BT: Tensor) -> Tensor:
    """The same text with another last token in every row."""
    changed = tokens_BT.clone()
    changed[:, -1] = (changed[:, -1] + 1) % int(tokens_BT.max())
    return changed


def _shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> Check:
    return Check(f"{name} have their shape", tensor.shape == expected, str(tuple(tensor.shape)))


def _causality(name: str, original_BTX: Tensor, changed_BTX: Tensor) -> Check:
    change_BT = (original_BTX - changed_BTX).abs().amax(dim=-1)
    past = bool(change_BT[:, :-1].max() < _UNCHANGED)
    present = bool(change_BT[:, -1].max() > _UNCHANGED)
    figure = f"past {'unchanged' if past else 'CHANGED'}, present {'changed' if present else 'NOT'}"
    return Check(f"{name} are causal: another last token", past and present, figure)
