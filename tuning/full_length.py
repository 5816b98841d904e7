"""Full-length training: both phases with checkpoints in a run directory, and going on from it.

A run directory holds what the run was started with (config.json, options.json, versions.json,
tokenizer.json); for each phase TensorBoard's events, metrics.csv and `last.ckpt`, and for Phase 2
`best.ckpt`, the epoch with the lowest `val_ppl`, too; in the end `model`, which is all one needs to
use what was learnt.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from rich.console import Console

from callbacks.context_parts import ContextParts
from callbacks.convergence_stopping import ConvergenceStopping
from callbacks.exact_resume import ExactResume
from callbacks.last_checkpoint import LastCheckpoint
from callbacks.non_finite_stopping import NonFiniteStopping
from callbacks.phase_progress import Describe, PhaseProgress
from callbacks.step_log import StepLog
from callbacks.whole_steps import WholeSteps
from config import Config, InputError
from datamodules.plain_line import print_line
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import metric_names as names
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.model_folder import save_model
from lightning_modules.token_prediction_module import TokenPredictionModule
from tuning.display import describe_phase1, describe_phase2
from tuning.metrics_file import MetricsFile, drop_rows_after
from tuning.run_options import RunOptions, check_divides, is_first_process, processes_of
from tuning.training import fit_phase, make_trainer
from tuning.versions import record_versions

_VERSIONS_FILE, _TOKENIZER_FILE = "versions.json", "tokenizer.json"
_PHASE1, _PHASE2 = "phase1", "phase2"
_MODEL = "model"


class FullRun:
    """Trains both phases of one configuration in one run directory; what is done is not repeated.

    Of several processes, all make one, with the same arguments; the first writes and speaks.

    Raises:
        InputError: batches cannot be shared by that many processes.
    """

    def __init__(
        self,
        config: Config,
        datamodule: TokenDataModule,
        run_dir: Path,
        console: Console,
        options: RunOptions = RunOptions(),  # noqa: B008  # frozen
    ) -> None:
        self.processes = processes_of(options, config.accelerator)
        num_rows, num_val_rows = len(datamodule.train_rows), len(datamodule.val_rows)
        check_divides(self.processes, config.batch_size, num_rows, num_val_rows)
        self.config = config
        self.datamodule = datamodule
        self.run_dir = run_dir
        self.console = console
        self.options = options

    def train(self) -> TokenPredictionModule:
        """Goes on with Phase 1 or Phase 2, wherever the run stands.

        Returns:
            The module of the epoch with the lowest `val_ppl`.

        Raises:
            FloatingPointError: Phase 1's contexts or an epoch's `val_ppl` are no numbers.
        """
        # Once, as a trial does, whose `val_ppl` is then met again. Of what is drawn, only Phase 1's
        # first weights come before Phase 2's, whether Phase 1 ran just now or not.
        if is_first_process():
            record_versions(self.run_dir / _VERSIONS_FILE)
            self.datamodule.tokenizer.save(str(self.run_dir / _TOKENIZER_FILE))
        L.seed_everything(self.config.random_seed, verbose=False)
        phase1 = self._phase1()
        phase2 = TokenPredictionModule.from_phase1(phase1, self.datamodule.vocab_size)
        phase1.forget_contexts()
        return self._phase2(phase2)

    def test(self, module: TokenPredictionModule) -> float | None:
        """Perplexity on the test split; None where it has no full sequence for every process."""
        if len(self.datamodule.test_rows) < self.processes.world_size:
            return None
        trainer = make_trainer(self.config, self.options, logger=False, enable_checkpointing=False)
        trainer.test(module, datamodule=self.datamodule, verbose=False)
        return float(trainer.callback_metrics[names.TEST_PPL])

    def export(self, module: TokenPredictionModule) -> Path:
        """Writes the weights with configuration and tokenizer to a folder, which it returns."""
        folder = self.run_dir / _MODEL
        if is_first_process():
            save_model(folder, module, self.datamodule.tokenizer)
        return folder

    def _phase1(self) -> FixedPointModule:
        if self._last(_PHASE2) is not None or self._is_done(_PHASE1):
            return self._load_phase1()
        module = FixedPointModule(self.config, self.datamodule.vocab_size)
        random_state = torch.get_rng_state()
        if self.options.compile:
            module.compile_steps()
        trainer = self._fit(
            module,
            _PHASE1,
            self.config.phase1_max_epochs,
            lambda metrics: describe_phase1(metrics, self.config.context_dim),
            [
                ConvergenceStopping(self.config.phase1_min_converged_ratio),
                ContextParts(self.run_dir / _PHASE1),
            ],
        )
        # A run that was killed after its last checkpoint has no sweep left, and no figures.
        rank = trainer.callback_metrics.get(names.PHASE1_EFFECTIVE_RANK, torch.ones(()))
        if not (torch.isfinite(rank) and _is_finite(module)):
            raise FloatingPointError("Phase 1 left contexts that are not finite")
        self._mark_done(_PHASE1)
        torch.set_rng_state(random_state)
        return module

    def _phase2(self, module: TokenPredictionModule) -> TokenPredictionModule:
        best = self.run_dir / _PHASE2 / "best.ckpt"
        callbacks: list[L.Callback] = [
            NonFiniteStopping(best),
            ModelCheckpoint(
                self.run_dir / _PHASE2,
                filename="best",
                monitor=names.VAL_PPL,
                enable_version_counter=False,
            ),
        ]
        if self.options.patience is not None:
            callbacks.append(EarlyStopping(names.VAL_PPL, patience=self.options.patience))
        if not self._is_done(_PHASE2):
            if self.options.compile:
                module.compile_steps()
            num_epochs = self.config.phase2_epochs
            trainer = self._fit(module, _PHASE2, num_epochs, describe_phase2, callbacks)
            if self.options.patience is not None and trainer.current_epoch < num_epochs:
                ended = f"  Phase 2: no lower val_ppl for {self.options.patience} epochs"
                print_line(self.console, ended)
            self._mark_done(_PHASE2)
        module = TokenPredictionModule.load_from_checkpoint(best, weights_only=True)
        if not _is_finite(module):
            raise FloatingPointError(f"the weights in {best} are not finite")
        return module

    def _fit(
        self,
        module: L.LightningModule,
        phase: str,
        num_epochs: int,
        describe: Describe,
        callbacks: list[L.Callback],
    ) -> L.Trainer:
        unit = "sweep" if phase == _PHASE1 else "epoch"
        title = "Phase 1" if phase == _PHASE1 else "Phase 2"
        progress = PhaseProgress(
            self.console, title=title, unit=unit, describe=describe, every_epoch=True
        )
        folder = self.run_dir / phase
        checkpoints: list[L.Callback] = [LastCheckpoint(folder)]
        if self.options.checkpoint_minutes is not None:
            checkpoints.append(LastCheckpoint(folder, self.options.checkpoint_minutes))
        return fit_phase(
            module,
            self.datamodule,
            config=self.config,
            num_epochs=num_epochs,
            logger=self._loggers(phase),
            callbacks=[progress, StepLog(), ExactResume(), WholeSteps(), *callbacks, *checkpoints],
            options=self.options,
            resume_from=self._last(phase),
        )

    def _loggers(self, phase: str) -> list[Logger]:
        """TensorBoard's and CSV's, from the step on at which the phase goes on."""
        last = self._last(phase)
        num_steps = 0
        if last is not None:
            checkpoint = torch.load(last, mmap=True, weights_only=True)
            num_steps = int(checkpoint["global_step"])
            self._check_ranks(checkpoint)
        if is_first_process():
            drop_rows_after(self.run_dir / phase / "metrics.csv", num_steps)
        return [
            TensorBoardLogger(
                self.run_dir,
                name="",
                version=phase,
                default_hp_metric=False,
                purge_step=num_steps,
            ),
            MetricsFile(self.run_dir, phase),
        ]

    def _check_ranks(self, checkpoint: Mapping[str, Any]) -> None:
        num_ranks = checkpoint.get("num_ranks", self.processes.world_size)
        if num_ranks != self.processes.world_size:
            raise InputError(
                f"--resume {self.run_dir}: Phase 1 was begun by {num_ranks} processes and goes on "
                f"with as many, not {self.processes.world_size}; give --devices and --num-nodes."
            )

    def _load_phase1(self) -> FixedPointModule:
        # Mapped: the contexts, the most of the file, are not read.
        path = self.run_dir / _PHASE1 / "last.ckpt"
        checkpoint = torch.load(path, mmap=True, weights_only=True)
        module = FixedPointModule(**checkpoint["hyper_parameters"])
        module.load_state_dict(checkpoint["state_dict"])
        return module

    def _mark_done(self, phase: str) -> None:
        if is_first_process():
            (self.run_dir / phase / "done").touch()

    def _last(self, phase: str) -> Path | None:
        path = self.run_dir / phase / "last.ckpt"
        return path if path.is_file() else None

    def _is_done(self, phase: str) -> bool:
        return (self.run_dir / phase / "done").exists()


def _is_finite(module: L.LightningModule) -> bool:
    return all(bool(weight.isfinite().all()) for weight in module.parameters())
