"""Full-length training: both phases with checkpoints in a run directory, and going on from it.

A run directory holds config.json, TensorBoard's events, and for each phase `last.ckpt`; Phase 2
has `best.ckpt`, the epoch with the lowest `val_ppl`, too.
"""

import dataclasses
import json
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

from callbacks.convergence_stopping import ConvergenceStopping
from callbacks.phase_progress import Describe, PhaseProgress
from config import Config, InputError
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import metric_names as names
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.token_prediction_module import TokenPredictionModule
from tuning.display import describe_phase1, describe_phase2
from tuning.training import fit_phase, quieten

_CONFIG_FILE = "config.json"
_PHASE1, _PHASE2 = "phase1", "phase2"


def start_run(run_dir: Path, config: Config) -> None:
    """Makes a run directory and stores the configuration in it.

    Raises:
        InputError: there is something in the folder already.
    """
    if run_dir.exists() and any(run_dir.iterdir()):
        raise InputError(
            f"--run-dir {run_dir} is not empty; give another, or --resume {run_dir} to go on."
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dataclasses.asdict(config), indent=2)
    (run_dir / _CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def stored_config(run_dir: Path) -> Config:
    """The configuration of a run that is continued.

    Raises:
        InputError: the folder is no run's.
    """
    path = run_dir / _CONFIG_FILE
    if not path.is_file():
        raise InputError(f"--resume {run_dir} has no {_CONFIG_FILE}; it must be a run's folder.")
    return Config(**json.loads(path.read_text(encoding="utf-8")))


class FullRun:
    """Trains both phases of one configuration in one run directory; what is done is not repeated."""

    def __init__(
        self, config: Config, datamodule: TokenDataModule, run_dir: Path, console: Console
    ) -> None:
        self.config = config
        self.datamodule = datamodule
        self.run_dir = run_dir
        self.console = console

    def train(self) -> TokenPredictionModule:
        """Goes on with Phase 1 or Phase 2, wherever the run stands.

        Returns:
            The module of the epoch with the lowest `val_ppl`.

        Raises:
            FloatingPointError: Phase 1's contexts or Phase 2's perplexity are no numbers.
        """
        # Once, as a trial does, whose `val_ppl` is then met again. Phase 1 draws nothing after its
        # first weights: Phase 2 starts from the same ones whether Phase 1 ran just now or not.
        L.seed_everything(self.config.random_seed, verbose=False)
        phase1 = self._phase1()
        phase2 = TokenPredictionModule.from_phase1(phase1, self.datamodule.vocab_size)
        phase1.forget_contexts()
        return self._phase2(phase2)

    def test(self, module: TokenPredictionModule) -> float | None:
        """Perplexity on the test split; None where it has no full sequence."""
        if len(self.datamodule.test_rows) == 0:
            return None
        quieten()
        trainer = L.Trainer(
            accelerator=self.config.accelerator,
            devices=1,
            precision=self.config.precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.test(module, datamodule=self.datamodule, verbose=False)
        return float(trainer.callback_metrics[names.TEST_PPL])

    def _phase1(self) -> FixedPointModule:
        if self._last(_PHASE2) is not None or self._is_done(_PHASE1):
            return self._load_phase1()
        module = FixedPointModule(self.config, self.datamodule.vocab_size)
        trainer = self._fit(
            module,
            _PHASE1,
            ModelCheckpoint(self.run_dir / _PHASE1, filename="last", enable_version_counter=False),
            self.config.phase1_max_epochs,
            lambda metrics: describe_phase1(metrics, self.config.context_dim),
            [ConvergenceStopping(self.config.phase1_min_converged_ratio)],
        )
        if not torch.isfinite(trainer.callback_metrics[names.PHASE1_EFFECTIVE_RANK]):
            raise FloatingPointError("Phase 1 left contexts that are not finite")
        (self.run_dir / _PHASE1 / "done").touch()
        return module

    def _phase2(self, module: TokenPredictionModule) -> TokenPredictionModule:
        checkpoint = ModelCheckpoint(
            self.run_dir / _PHASE2,
            filename="best",
            monitor=names.VAL_PPL,
            save_last=True,
            enable_version_counter=False,
        )
        if not self._is_done(_PHASE2):
            self._fit(module, _PHASE2, checkpoint, self.config.phase2_epochs, describe_phase2, [])
            (self.run_dir / _PHASE2 / "done").touch()
        best = self.run_dir / _PHASE2 / "best.ckpt"
        if not best.is_file():
            raise FloatingPointError("Phase 2 had no epoch with a finite perplexity")
        return TokenPredictionModule.load_from_checkpoint(best, weights_only=True)

    def _fit(
        self,
        module: L.LightningModule,
        phase: str,
        checkpoint: ModelCheckpoint,
        num_epochs: int,
        describe: Describe,
        callbacks: list[L.Callback],
    ) -> L.Trainer:
        unit = "sweep" if phase == _PHASE1 else "epoch"
        title = "Phase 1" if phase == _PHASE1 else "Phase 2"
        progress = PhaseProgress(
            self.console, title=title, unit=unit, describe=describe, every_epoch=True
        )
        return fit_phase(
            module,
            self.datamodule,
            config=self.config,
            num_epochs=num_epochs,
            logger=TensorBoardLogger(self.run_dir, name="", version=phase, default_hp_metric=False),
            callbacks=[progress, *callbacks, checkpoint],
            resume_from=self._last(phase),
        )

    def _load_phase1(self) -> FixedPointModule:
        # Mapped: the contexts, the most of the file, are not read.
        path = self.run_dir / _PHASE1 / "last.ckpt"
        checkpoint = torch.load(path, mmap=True, weights_only=True)
        module = FixedPointModule(**checkpoint["hyper_parameters"])
        module.load_state_dict(checkpoint["state_dict"])
        return module

    def _last(self, phase: str) -> Path | None:
        path = self.run_dir / phase / "last.ckpt"
        return path if path.is_file() else None

    def _is_done(self, phase: str) -> bool:
        return (self.run_dir / phase / "done").exists()
