"""The objective: Phase 1, its checks, Phase 2; the best epoch's `val_ppl`."""

import dataclasses
import functools
import math
import time
import traceback
from pathlib import Path

import lightning as L
import optuna
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from optuna_integration import PyTorchLightningPruningCallback

from callbacks.convergence_stopping import ConvergenceStopping
from callbacks.effective_rank_pruning import EffectiveRankPruning
from callbacks.identity_mapping_pruning import IdentityMappingPruning
from callbacks.non_finite_pruning import NonFinitePruning
from callbacks.phase_progress import PhaseProgress
from callbacks.verdict import MEDIAN, OUT_OF_MEMORY, PRUNING_REASON, disqualify
from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import metric_names as names
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.token_prediction_module import TokenPredictionModule
from tuning.display import StudyDisplay, describe_phase1, describe_phase2
from tuning.search_space import DEFAULT_SPACE, SearchSpace
from tuning.time_limit import TimeoutReached
from tuning.training import device_name, fit_phase

DEVICE = "device"
"""Attribute of a trial: what it was computed on."""


class Objective:
    """Called by Optuna with a trial.

    Every trial has the same seed: trials differ by their parameters alone, and what the weights'
    first values and the order of batches do to `val_ppl` cancels in their comparison.
    """

    run_prefix = "trial"

    def __init__(
        self,
        config: Config,
        datamodule: TokenDataModule,
        log_dir: Path,
        display: StudyDisplay,
        space: SearchSpace = DEFAULT_SPACE,
    ) -> None:
        self.config = config
        self.datamodule = datamodule
        self.log_dir = log_dir
        self.display = display
        self.space = space

    def __call__(self, trial: optuna.Trial) -> float:
        """Trains both phases.

        Returns:
            The lowest `val_ppl` of Phase 2's epochs.

        Raises:
            optuna.TrialPruned: a callback or the pruner disqualified the trial, its loss is not
                finite, or memory ran out; the reason is in the trial's attributes.
        """
        config = self.config_of(trial)
        trial.set_user_attr(DEVICE, device_name(config.accelerator))
        logger = TensorBoardLogger(
            self.log_dir,
            name="",
            version=f"{self.run_prefix}_{trial.number:04d}",
            default_hp_metric=False,
        )
        outcome = "failed"
        try:
            val_ppl = self._train(trial, config, logger)
            outcome = "complete"
            return val_ppl
        except optuna.TrialPruned:
            if PRUNING_REASON not in trial.user_attrs:
                trial.set_user_attr(PRUNING_REASON, MEDIAN)
            outcome = f"pruned: {trial.user_attrs[PRUNING_REASON]}"
            raise
        except TimeoutReached:
            outcome = "cut off"
            raise
        except Exception:
            # Of any kind, as it is raised again: the study shows it, and Optuna hands on none.
            trial.set_user_attr("traceback", traceback.format_exc())
            raise
        finally:
            _log_outcome(logger, trial, outcome)

    def config_of(self, trial: optuna.Trial) -> Config:
        """The study's configuration with the trial's values."""
        return dataclasses.replace(self.config, **self.space.suggest(trial))  # type: ignore[arg-type]

    def _train(self, trial: optuna.Trial, config: Config, logger: TensorBoardLogger) -> float:
        L.seed_everything(config.random_seed, verbose=False)
        try:
            phase1 = self._phase1(trial, config, logger)
            return self._phase2(trial, phase1, logger)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            trial.set_constraint("memory", 1.0)
            # Python's own error has no message.
            message = str(error).partition("\n")[0] or type(error).__name__
            disqualify(trial, OUT_OF_MEMORY, float("nan"), message)

    def _phase1(
        self, trial: optuna.Trial, config: Config, logger: TensorBoardLogger
    ) -> FixedPointModule:
        module = FixedPointModule(config, self.datamodule.vocab_size)
        callbacks = [
            PhaseProgress(
                self.display.console,
                title="Phase 1",
                unit="sweep",
                describe=functools.partial(describe_phase1, context_dim=config.context_dim),
            ),
            NonFinitePruning(trial, monitor=names.PHASE1_TRAIN_LOSS),
            ConvergenceStopping(config.phase1_min_converged_ratio),
            IdentityMappingPruning(
                trial,
                threshold=config.identity_mapping_threshold,
                min_token_sensitivity=config.min_token_sensitivity,
            ),
            EffectiveRankPruning(trial, min_effective_rank=config.min_effective_rank),
        ]
        with _Timed(trial, "phase1_seconds"):
            fit_phase(
                module,
                self.datamodule,
                config=config,
                num_epochs=config.phase1_max_epochs,
                logger=logger,
                callbacks=callbacks,
            )
        return module

    def _phase2(
        self, trial: optuna.Trial, phase1: FixedPointModule, logger: TensorBoardLogger
    ) -> float:
        config = phase1.config
        module = TokenPredictionModule.from_phase1(phase1, self.datamodule.vocab_size)
        phase1.forget_contexts()
        callbacks = [
            PhaseProgress(
                self.display.console, title="Phase 2", unit="epoch", describe=describe_phase2
            ),
            NonFinitePruning(trial, monitor=names.VAL_PPL),
            PyTorchLightningPruningCallback(trial, monitor=names.VAL_PPL),
        ]
        with _Timed(trial, "phase2_seconds"):
            fit_phase(
                module,
                self.datamodule,
                config=config,
                num_epochs=config.phase2_epochs,
                logger=logger,
                callbacks=callbacks,
            )
        return min(_reported(trial))


class _Timed:
    """Stores the wall time of a phase, in seconds, however it ends."""

    def __init__(self, trial: optuna.Trial, name: str) -> None:
        self.trial = trial
        self.name = name

    def __enter__(self) -> None:
        self.start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.trial.set_user_attr(self.name, round(time.monotonic() - self.start, 2))


def _is_out_of_memory(error: Exception) -> bool:
    # A CPU's allocator has no exception class of its own.
    is_told = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return is_told or "can't allocate memory" in str(error)


def _reported(trial: optuna.Trial) -> list[float]:
    return list(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values.values())


def _log_outcome(logger: TensorBoardLogger, trial: optuna.Trial, outcome: str) -> None:
    """A row of TensorBoard's hyper-parameter tab.

    A figure that a trial never had is written as NaN: the tab takes its columns from one trial,
    and shows none that this one has not.
    """
    figures = {"outcome/val_ppl": min(_reported(trial), default=math.nan)}
    for name in ("effective_rank", "context_cosine"):
        figures[f"outcome/{name}"] = float(trial.user_attrs.get(name, math.nan))
    logger.log_hyperparams({**trial.params, "outcome": outcome}, figures)
    logger.finalize("success")
