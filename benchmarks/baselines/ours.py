"""Our own model in the harness: its phases through the repository's own modules.

Shapes: B sequences, T tokens, C = context_dim, V = vocabulary.
"""

import dataclasses
import time
import types
import typing
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import lightning as L
from torch import Tensor

from benchmarks.baselines.sizing import solve_size
from benchmarks.baselines.training import BestEpoch, Training
from benchmarks.phases import State, make_phase1
from callbacks.convergence_stopping import ConvergenceStopping
from config import Config, InputError
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import metric_names as names
from lightning_modules.token_prediction_module import TokenPredictionModule
from models.generation import GenerationState, next_logits, read_prompt, read_token
from tuning.training import NO_LOGGER, fit_phase

_SIZES = ("context_dim", "embed_dim", "head_embed_dim", "head_hidden_dim")


class Variant(NamedTuple):
    """network: the state of F that Phase 2 starts from. freeze_context: `Config`'s."""

    network: State
    freeze_context: bool


VARIANTS: Mapping[str, Variant] = types.MappingProxyType(
    {
        "ours-untrained": Variant("untrained", freeze_context=True),
        "ours-read": Variant("read", freeze_context=True),
        "ours-frozen": Variant("trained", freeze_context=True),
        "ours-unfrozen": Variant("trained", freeze_context=False),
        "ours-unfrozen-no-phase1": Variant("untrained", freeze_context=False),
    }
)

Overrides = dict[str, typing.Any]


def parse_overrides(pairs: Sequence[str], taken: Sequence[str]) -> Overrides:
    """`key=value` texts to values of `Config`'s fields.

    Args:
        pairs: as the command line has them.
        taken: fields that are the same for all models, which no override may set.

    Raises:
        InputError: no such field, one that is taken, or a value that is none of its type.
    """
    hints = typing.get_type_hints(Config)
    overrides: Overrides = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not equals or name not in hints:
            raise InputError(f"--ours {pair!r} must be FIELD=VALUE, FIELD one of config.py's.")
        if name in taken:
            raise InputError(f"--ours {pair!r}: {name} is the same for all models; leave it out.")
        overrides[name] = _parsed(text.strip(), hints[name], pair)
    dataclasses.replace(Config(), **overrides)  # checks the ranges
    return overrides


def _parsed(text: str, hint: typing.Any, pair: str) -> object:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(None) in kinds and text.lower() == "none":
        return None
    if bool in kinds:
        if text.lower() not in ("true", "false"):
            raise InputError(f"--ours {pair!r}: the value must be true or false.")
        return text.lower() == "true"
    for kind, right in ((int, "a whole number"), (float, "a number")):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError as error:
                raise InputError(f"--ours {pair!r}: the value must be {right}.") from error
    return text


def sized(config: Config, fixed: Sequence[str], vocab_size: int, target: float) -> Config:
    """The sizes of F and of the token head scaled together to a number of parameters.

    Args:
        config: whose proportions are kept.
        fixed: fields that stay as they are.
        vocab_size: V.
        target: number of parameters of both together.

    Raises:
        InputError: no scale comes within 5 %.
    """
    scaled = [name for name in _SIZES if name not in fixed]

    def at(scale: int) -> Config:
        sizes = {name: max(1, round(getattr(config, name) * scale / 1000)) for name in scaled}
        return dataclasses.replace(config, **sizes)

    if not scaled:
        return config
    return at(solve_size(lambda scale: TokenPredictionModule(at(scale), vocab_size), target))


def train_ours(
    config: Config,
    datamodule: TokenDataModule,
    variant: Variant,
    patience: int,
    *,
    compiled: bool = False,
) -> Training:
    """Both phases as a trial of the study runs them, nothing pruned; the best epoch is kept.

    Seconds are those of both phases.

    Raises:
        FloatingPointError: a validation loss is not finite.
    """
    start = time.monotonic()
    config = dataclasses.replace(config, freeze_context=variant.freeze_context)
    phase1 = make_phase1(
        config, datamodule, variant.network, compiled=compiled,
        callbacks=[ConvergenceStopping(config.phase1_min_converged_ratio)],
    )  # fmt: skip
    module = TokenPredictionModule.from_phase1(phase1.module, datamodule.vocab_size)
    if compiled:
        module.compile_steps()
    best = BestEpoch(patience)
    fit_phase(
        module, datamodule, config=config, num_epochs=config.phase2_epochs,
        logger=NO_LOGGER, callbacks=[_EarlyStopping(best)],
    )  # fmt: skip
    module.contexts = module.val_contexts = None
    return best.training(module, phase1.num_sweeps + best.num_epochs, start)


class _EarlyStopping(L.Callback):
    def __init__(self, best: BestEpoch) -> None:
        self.best = best

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.best.look(pl_module, float(trainer.callback_metrics[names.VAL_LOSS]))
        trainer.should_stop = trainer.should_stop or self.best.is_over


class ContextGenerator:
    """Generates with our model."""

    def __init__(self, module: TokenPredictionModule) -> None:
        self.network, self.head = module.network, module.head

    def read(
        self, tokens_BT: Tensor, state: GenerationState | None
    ) -> tuple[Tensor, GenerationState]:
        """What the head has made of the last token (B, 1, D), and the state after it."""
        state = read_prompt(self.network, self.head, tokens_BT, state)
        return state.read, state

    def step(
        self, tokens_B: Tensor, state: GenerationState | None
    ) -> tuple[Tensor, GenerationState]:
        """One token a row: logits (B, V), and the next state."""
        if state is None:
            state = read_prompt(self.network, self.head, tokens_B.unsqueeze(1))
        else:
            state = read_token(self.network, self.head, state, tokens_B)
        return next_logits(self.head, state), state
