"""Phase 1: contexts that reach a fixed point and stay diverse."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Adam

from config import Config
from datamodules.token_datamodule import TokenBatch, TokenRows
from lightning_modules import metric_names as names
from lightning_modules.metrics import EffectiveRank, WeightedMean
from lightning_modules.schedule import scheduled
from lightning_modules.settings import as_config, can_fuse, checkpoint_record, context_network
from models.diagnostics import inspect_mapping
from models.diversity import DIVERSITY_LOSSES, RunningStatistics
from models.fixed_point import solve_rows
from models.gated_network import GatedContextNetwork
from models.sweeps import quasi_newton_step, residuals, sweep


class FixedPointModule(L.LightningModule):
    """Trains F by sweeps: loss `(1 - w) · mean residual + w · diversity`.

    An epoch is one sweep over the training rows. Contexts start at zero and are kept from epoch to
    epoch; a sweep that starts away from the fixed point is what teaches F to contract. Token
    embeddings are not trained.

    Validation solves unseen rows exactly for effective rank, identity mapping and token
    sensitivity, and sweeps contexts of its own beside the training's for the converged ratio.
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
        self.rank = EffectiveRank(config.context_dim)
        self.context_cosine = WeightedMean()
        self.token_sensitivity = WeightedMean()
        self.contexts: Tensor | None = None
        self.val_contexts: Tensor | None = None

    def setup(self, stage: str) -> None:
        # Before weights are restored from a checkpoint, so that a run that is continued keeps its.
        if stage == "fit" and isinstance(self.network, GatedContextNetwork):
            datamodule = self.trainer.datamodule  # type: ignore[attr-defined]  # set by fit(datamodule=)
            self.network.set_token_counts(datamodule.token_counts())

    def on_fit_start(self) -> None:
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]  # set by fit(datamodule=)
        if self.contexts is None:
            self.contexts = self._zeros(datamodule.train_rows)
            self.val_contexts = self._zeros(datamodule.val_rows)

    def training_step(self, batch: TokenBatch, batch_index: int) -> Tensor:
        assert self.contexts is not None
        previous_BTC = self.contexts[batch.row_index]
        embeddings_BTE = self.network.embed(batch.tokens)
        swept_BTC = sweep(self.network, previous_BTC, embeddings_BTE)
        residuals_BT = residuals(previous_BTC, swept_BTC)
        residual = residuals_BT.mean()
        diversity = self.diversity(self.statistics(swept_BTC))
        weight = self.config.dist_reg_weight
        loss = (1 - weight) * residual + weight * diversity
        next_BTC = quasi_newton_step(self.network, previous_BTC, swept_BTC.detach(), embeddings_BTE)
        self.contexts[batch.row_index] = next_BTC.to(self.contexts.dtype)
        figures = {
            names.PHASE1_TRAIN_LOSS: loss.detach(),
            names.PHASE1_RESIDUAL: residual.detach(),
            names.PHASE1_DIVERSITY: diversity.detach(),
            names.PHASE1_CONVERGED_RATIO: self._converged_ratio(residuals_BT),
        }
        self._log(figures, batch)
        return loss

    def validation_step(self, batch: TokenBatch, batch_index: int) -> None:
        assert self.val_contexts is not None
        embeddings_BTE = self.network.embed(batch.tokens)
        previous_BTC = self.val_contexts[batch.row_index]
        swept_BTC = sweep(self.network, previous_BTC, embeddings_BTE)
        next_BTC = quasi_newton_step(self.network, previous_BTC, swept_BTC, embeddings_BTE)
        self.val_contexts[batch.row_index] = next_BTC.to(previous_BTC.dtype)
        ratio = self._converged_ratio(residuals(previous_BTC, swept_BTC))
        self._log({names.PHASE1_VAL_CONVERGED_RATIO: ratio}, batch)

        exact_BTC = solve_rows(self.network, embeddings_BTE)
        self.rank.update(exact_BTC)
        mapping = inspect_mapping(self.network, exact_BTC, embeddings_BTE)
        self.context_cosine.update(mapping.context_cosine, weight=len(batch.tokens))
        self.token_sensitivity.update(mapping.token_sensitivity, weight=len(batch.tokens))

    def on_validation_epoch_end(self) -> None:
        rank = self.rank.compute()
        self.log(names.PHASE1_EFFECTIVE_RANK, rank)
        self.log(names.PHASE1_EFFECTIVE_RANK_RATIO, rank / self.config.context_dim)
        self.log(names.PHASE1_CONTEXT_COSINE, self.context_cosine.compute())
        self.log(names.PHASE1_TOKEN_SENSITIVITY, self.token_sensitivity.compute())
        for metric in (self.rank, self.context_cosine, self.token_sensitivity):
            metric.reset()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = Adam(
            self.network.layers.parameters(),
            lr=self.config.phase1_learning_rate,
            fused=can_fuse(self.config),
        )
        num_steps = int(self.trainer.estimated_stepping_batches)
        return scheduled(optimizer, num_steps, self.config.warmup_ratio)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["contexts"] = (self.contexts, self.val_contexts)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.contexts, self.val_contexts = checkpoint["contexts"]

    def _zeros(self, rows: TokenRows) -> Tensor:
        shape = (*rows.tokens.shape, self.config.context_dim)
        return torch.zeros(shape, device=self.device, dtype=self.statistics.first_sum.dtype)

    def _converged_ratio(self, residuals_BT: Tensor) -> Tensor:
        converged = residuals_BT.detach() < self.config.phase1_convergence_threshold
        return converged.float().mean()

    def _log(self, figures: dict[str, Tensor], batch: TokenBatch) -> None:
        self.log_dict(figures, on_step=False, on_epoch=True, batch_size=len(batch.tokens))
