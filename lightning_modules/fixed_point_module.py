"""Phase 1: contexts that reach a fixed point and stay diverse."""

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Adam, Optimizer

from config import Config
from datamodules.token_datamodule import TokenBatch, TokenDataModule
from lightning_modules import metric_names as names
from lightning_modules.context_store import ContextStore
from lightning_modules.full_batches import FullBatches
from lightning_modules.metrics import EffectiveRank, WeightedMean
from lightning_modules.schedule import scheduled
from lightning_modules.settings import (
    as_config,
    checkpoint_record,
    clip_gradients,
    context_network,
    context_store,
    datamodule_of,
    gate_parameters,
    phase1_parameters,
)
from models.context_network import normalise
from models.contraction import contraction, lasting_disturbance
from models.diagnostics import inspect_mapping
from models.diversity import DIVERSITY_LOSSES, RunningStatistics
from models.fixed_point import solve_rows
from models.gated_network import GatedContextNetwork
from models.sweeps import quasi_newton_step, residuals, sweep

_FIGURES = (
    names.PHASE1_TRAIN_LOSS,
    names.PHASE1_RESIDUAL,
    names.PHASE1_CONTRACTION,
    names.PHASE1_DIVERSITY,
    names.PHASE1_CONVERGED_RATIO,
)
_LossOfSweep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
_VAL_TOKENS_A_TRAINING_TOKEN = 1 / 3
"""Unseen tokens that are measured for every training token of the sweeps between two measurements:
a measurement is two passes of F where training is three, and takes a fifth of the time at most."""


class FixedPointModule(L.LightningModule):
    """Trains F by sweeps: loss `(1 - w) · convergence + w · diversity`.

    Convergence is the mean residual, how far contexts still move, plus `contraction_weight` times
    what a disturbance of a context is worth in all later ones. The first is 0 wherever contexts have
    arrived; the second does not fade, and is what diversity, which grows with what contexts
    remember, is weighed against.

    An epoch is one sweep over the training rows. Contexts start at zero and are kept from epoch to
    epoch; a sweep that starts away from the fixed point is what teaches F to contract. Token
    embeddings are set from the training text before the first sweep, and not trained.

    Validation sweeps contexts of its own beside the training's, of as many rows at most, for the
    converged ratio. After some sweeps, the last among them always, it solves all unseen rows exactly
    for effective rank, identity mapping and token sensitivity.
    """

    def __init__(self, config: Config | dict[str, Any], vocab_size: int) -> None:
        super().__init__()
        config = as_config(config)
        self.save_hyperparameters(checkpoint_record(config, vocab_size), logger=False)
        self.config = config
        self.network = context_network(config, vocab_size)
        self.network.embedding.requires_grad_(False)
        self.statistics = RunningStatistics(config.context_dim, config.ema_momentum)
        self.diversity = DIVERSITY_LOSSES[config.diversity_loss]
        self.figures = WeightedMean(len(_FIGURES))
        self.val_converged_ratio = WeightedMean()
        self.rank = EffectiveRank(config.context_dim)
        self.context_cosine = WeightedMean()
        self.token_sensitivity = WeightedMean()
        self.contexts: ContextStore | None = None
        self.val_contexts: ContextStore | None = None
        self._restored: tuple[Tensor, Tensor] | None = None
        self._is_measured = True
        self._num_to_sweep = 0
        self.loss_of_sweep: _LossOfSweep = self._loss_of_sweep

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (B, T) to the contexts (B, T, C) that have read them."""
        with torch.no_grad():
            return solve_rows(self.network, self.network.embed(tokens))

    def setup(self, stage: str) -> None:
        # Before weights are restored from a checkpoint, so that a run that is continued keeps its.
        if stage == "fit":
            self.read_training_text(datamodule_of(self.trainer))

    def on_fit_start(self) -> None:
        datamodule = datamodule_of(self.trainer)
        if self.contexts is None:
            num_rows, num_val_rows = (
                len(datamodule.own_rows(rows))
                for rows in (datamodule.train_rows, datamodule.val_rows)
            )
            weight, num_sharing = self.network.embedding.weight, self.trainer.num_devices
            self.contexts = context_store(self.config, num_rows, weight, num_sharing)
            num_val_rows = min(num_rows, num_val_rows)
            self.val_contexts = context_store(self.config, num_val_rows, weight, num_sharing)
        if self._restored is not None:
            assert self.val_contexts is not None
            self.contexts.fill(self._restored[0])
            self.val_contexts.fill(self._restored[1])
            self._restored = None

    def on_train_epoch_start(self) -> None:
        self.figures.reset()

    def training_step(self, batch: TokenBatch, batch_index: int) -> Tensor:
        assert self.contexts is not None
        previous_BTC = self.contexts[batch.row_index]
        loss, figures, next_BTC = self.loss_of_sweep(previous_BTC, batch.tokens)
        self.contexts[batch.row_index] = next_BTC
        self.figures.update(figures, weight=len(batch.tokens))
        if self.trainer.is_last_batch:
            # Once an epoch: logging at every step cost more than a tenth of a small step.
            means = self.figures.compute()
            figures_by_name = dict(zip(_FIGURES, means, strict=True))
            # As a step's figures, which loggers have before the epoch's checkpoint is written.
            self.log_dict(figures_by_name, on_step=True, on_epoch=False)
        return loss

    def on_validation_epoch_start(self) -> None:
        assert self.val_contexts is not None
        self._is_measured = self._measures_now()
        self._num_to_sweep = len(self.val_contexts.rows)

    def validation_step(self, batch: TokenBatch, batch_index: int) -> None:
        embeddings_BTE = self.network.embed(batch.tokens)
        num_rows = min(self._num_to_sweep, len(batch.tokens))
        if num_rows > 0:
            self._sweep_unseen(embeddings_BTE[:num_rows], batch.row_index[:num_rows])
            self._num_to_sweep -= num_rows
        if self._is_measured:
            self._measure(embeddings_BTE)

    def on_validation_epoch_end(self) -> None:
        self.log(names.PHASE1_VAL_CONVERGED_RATIO, self.val_converged_ratio.compute())
        self.val_converged_ratio.reset()
        if not self._is_measured:
            return
        rank = self.rank.compute()
        self.log(names.PHASE1_EFFECTIVE_RANK, rank)
        self.log(names.PHASE1_EFFECTIVE_RANK_RATIO, rank / self.config.context_dim)
        self.log(names.PHASE1_CONTEXT_COSINE, self.context_cosine.compute())
        self.log(names.PHASE1_TOKEN_SENSITIVITY, self.token_sensitivity.compute())
        for metric in (self.rank, self.context_cosine, self.token_sensitivity):
            metric.reset()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = Adam(
            phase1_parameters(self.network, self.config.phase1_learning_rate),
            lr=self.config.phase1_learning_rate,
            fused=True,
        )
        num_steps = int(self.trainer.estimated_stepping_batches)
        return scheduled(optimizer, self.config.lr_schedule, num_steps, self.config.warmup_ratio)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.contexts is not None
        assert self.val_contexts is not None
        checkpoint["contexts"] = (self.contexts.rows, self.val_contexts.rows)
        checkpoint["epoch_sums"] = self.figures.sums_of_ranks()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # In training alone: who looks at the model has no use for the contexts of its text.
        # (Lightning has no public name for whether there is a trainer.)
        if self._trainer is not None:
            self.restore_contexts(checkpoint["contexts"])
        self.figures.restore_sums(checkpoint["epoch_sums"], self.global_rank)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.current_epoch == 0:
            # Of contexts that are still zero F keeps none, whatever its gates: their gradient is
            # rounding, of which Adam makes full steps, and a long text has many.
            for gate in gate_parameters(self.network):
                gate.grad = None

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        clip_gradients(optimizer, gradient_clip_val)

    def restore_contexts(self, contexts: tuple[Tensor, Tensor]) -> None:
        """Has fitting start from contexts of this process's training and unseen rows."""
        self._restored = contexts

    @torch.no_grad()
    def read_training_text(self, datamodule: TokenDataModule) -> None:
        """Tells F how rare tokens are, and embeds them by the tokens that stand before them."""
        if isinstance(self.network, GatedContextNetwork):
            self.network.set_token_counts(datamodule.token_counts())
        share = self.config.neighbour_share
        if share > 0:
            random = normalise(self.network.embedding.weight)
            neighbours = datamodule.neighbour_embedding(self.config.embed_dim).to(random)
            mixed = share**0.5 * normalise(neighbours) + (1 - share) ** 0.5 * random
            has_neighbours = neighbours.any(dim=-1, keepdim=True)
            self.network.embedding.weight.copy_(torch.where(has_neighbours, mixed, random))

    def forget_contexts(self) -> None:
        """Gives back the room of the contexts, which nothing after Phase 1 reads."""
        self.contexts = self.val_contexts = self._restored = None

    def compile_steps(self) -> None:
        """Compiles F, and what a step computes for a full batch; results differ by rounding."""
        self.network.compile()
        self.loss_of_sweep = FullBatches(self._loss_of_sweep)

    def _loss_of_sweep(
        self, previous_BTC: Tensor, tokens_BT: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of a sweep, its `_FIGURES`, and the contexts (B, T, C) that it leaves."""
        embeddings_BTE = self.network.embed(tokens_BT)
        swept_BTC = sweep(self.network, previous_BTC, embeddings_BTE)
        residuals_BT = residuals(previous_BTC, swept_BTC)
        residual = residuals_BT.mean()
        diversity = self.diversity(self.statistics(swept_BTC))
        weight = self.config.dist_reg_weight
        remaining = self._contraction(previous_BTC, embeddings_BTE, swept_BTC)
        lasting = lasting_disturbance(remaining)
        convergence = residual + self.config.contraction_weight * lasting
        loss = (1 - weight) * convergence + weight * diversity
        ratio = self._converged_ratio(residuals_BT)
        figures = torch.stack([loss, residual, remaining, diversity, ratio]).detach()
        next_BTC = quasi_newton_step(self.network, previous_BTC, swept_BTC.detach(), embeddings_BTE)
        return loss, figures, next_BTC

    def _contraction(
        self, previous_BTC: Tensor, embeddings_BTE: Tensor, swept_BTC: Tensor
    ) -> Tensor:
        """0 where it has no weight, and is not worth its time."""
        if self.config.contraction_weight == 0:
            return previous_BTC.new_zeros(())
        return contraction(self.network, previous_BTC, embeddings_BTE, swept_BTC)

    def _measures_now(self) -> bool:
        """Whether unseen rows are solved after this sweep: it may be the last, or it is its turn."""
        num_sweeps = self.current_epoch + 1
        if num_sweeps == self.trainer.max_epochs:
            return True
        converged_ratio = self.figures.compute()[_FIGURES.index(names.PHASE1_CONVERGED_RATIO)]
        if converged_ratio >= self.config.phase1_min_converged_ratio:
            return True
        return num_sweeps % self._measure_every() == 0

    def _measure_every(self) -> int:
        if self.config.phase1_measure_every is not None:
            return self.config.phase1_measure_every
        datamodule = datamodule_of(self.trainer)
        num_measured = _VAL_TOKENS_A_TRAINING_TOKEN * datamodule.train_rows.num_tokens
        return max(1, math.ceil(datamodule.num_val_tokens / num_measured))

    def _sweep_unseen(self, embeddings_BTE: Tensor, row_index: Tensor) -> None:
        assert self.val_contexts is not None
        previous_BTC = self.val_contexts[row_index]
        swept_BTC = sweep(self.network, previous_BTC, embeddings_BTE)
        next_BTC = quasi_newton_step(self.network, previous_BTC, swept_BTC, embeddings_BTE)
        self.val_contexts[row_index] = next_BTC
        ratio = self._converged_ratio(residuals(previous_BTC, swept_BTC))
        self.val_converged_ratio.update(ratio, weight=len(row_index))

    def _measure(self, embeddings_BTE: Tensor) -> None:
        exact_BTC = solve_rows(self.network, embeddings_BTE)
        self.rank.update(exact_BTC)
        mapping = inspect_mapping(self.network, exact_BTC, embeddings_BTE, exact_BTC)
        self.context_cosine.update(mapping.context_cosine, weight=len(embeddings_BTE))
        self.token_sensitivity.update(mapping.token_sensitivity, weight=len(embeddings_BTE))

    def _converged_ratio(self, residuals_BT: Tensor) -> Tensor:
        converged = residuals_BT.detach() < self.config.phase1_convergence_threshold
        return converged.float().mean()
