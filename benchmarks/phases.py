"""What the phases of a trial come to, nothing pruned: F in the state that is asked for, and Phase 2 on it."""

import copy
from collections.abc import Sequence
from typing import Literal, NamedTuple

import lightning as L

from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import metric_names as names
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.token_prediction_module import TokenPredictionModule
from models.gated_network import GatedContextNetwork
from tuning.training import NO_LOGGER, fit_phase

State = Literal["untrained", "read", "trained"]
"""Of F. untrained: as it was drawn, though its gates know the tokens' counts, which are no result of
training. read: as Phase 1 starts, its embedding set from the training text too. trained: after it."""


class Phase1(NamedTuple):
    """figures: of the last validation, by name. num_sweeps: over the training rows."""

    module: FixedPointModule
    figures: dict[str, float]
    num_sweeps: int


class LowestPerplexity(L.Callback):
    """Keeps the lowest `val_ppl` of a phase's epochs."""

    def __init__(self) -> None:
        self.value = float("inf")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.value = min(self.value, float(trainer.callback_metrics[names.VAL_PPL]))


def make_phase1(
    config: Config,
    data: TokenDataModule,
    state: State,
    *,
    callbacks: Sequence[L.Callback] = (),
    compiled: bool = False,
) -> Phase1:
    """Seeds, and brings an F into a state; without training there are no figures and no sweeps.

    Args:
        config: of the module, and from now on of the data.
        data: that was set up.
        state: see there.
        callbacks: of the training.
        compiled: whether training steps are compiled.
    """
    data.config = config
    L.seed_everything(config.random_seed, verbose=False)
    module = FixedPointModule(config, data.vocab_size)
    if state == "read":
        module.read_training_text(data)
    elif state == "untrained" and isinstance(module.network, GatedContextNetwork):
        module.network.set_token_counts(data.token_counts())
    if state != "trained":
        return Phase1(module, {}, 0)
    if compiled:
        module.compile_steps()
    trainer = fit_phase(
        module, data, config=config, num_epochs=config.phase1_max_epochs, logger=NO_LOGGER,
        callbacks=callbacks,
    )  # fmt: skip
    module.forget_contexts()
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return Phase1(module, figures, trainer.current_epoch)


def train_phase2(
    phase1: FixedPointModule,
    data: TokenDataModule,
    config: Config,
    *,
    callbacks: Sequence[L.Callback] = (),
) -> tuple[TokenPredictionModule, float]:
    """Trains Phase 2 on a copy of F: its module, and the lowest `val_ppl` of its epochs.

    Args:
        phase1: whose weights are copied.
        data: that was set up; the configuration is its from now on.
        config: of Phase 2, with the sizes of Phase 1's.
        callbacks: of the training.
    """
    data.config = config
    phase1 = copy.copy(phase1)
    phase1.config = config
    module = TokenPredictionModule.from_phase1(phase1, data.vocab_size)
    lowest = LowestPerplexity()
    fit_phase(
        module, data, config=config, num_epochs=config.phase2_epochs, logger=NO_LOGGER,
        callbacks=[lowest, *callbacks],
    )  # fmt: skip
    return module, lowest.value
