"""Phase 2: the next token from the contexts."""

from collections.abc import Callable
from typing import Any, Self

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer

from config import Config
from datamodules.token_datamodule import TokenBatch, TokenRows
from lightning_modules import metric_names as names
from lightning_modules.context_store import ContextStore
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.full_batches import FullBatches
from lightning_modules.metrics import WeightedMean
from lightning_modules.optimizers import Part, phase2_optimizer
from lightning_modules.schedule import scheduled
from lightning_modules.settings import (
    as_config,
    checkpoint_record,
    clip_gradients,
    context_network,
    context_store,
    datamodule_of,
)
from models.fixed_point import solve_rows, with_gradient
from models.shared_embedding import SharedEmbedding
from models.token_head import EMBEDDING_STD, Recall, TokenHead

_ROWS_AT_ONCE = 256
"""Rows whose contexts are solved together: enough to fill a matrix product."""

_LossOfTokens = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

TOKENIZER_KEY = "tokenizer"
"""Where a checkpoint holds the tokenizer, as the text of a tokenizer.json."""


class TokenPredictionModule(L.LightningModule):
    """Trains the token head on contexts, and with `freeze_context` off the context network too.

    Frozen contexts are computed once, when fitting starts, and never again. Otherwise the last
    `phase2_num_sweeps` sweeps of every step carry gradients to F and to its embedding, and with
    `phase2_gradient` "memory" the first of these on over the whole text. F then reads the token
    head's embedding with `share_embedding`.
    """

    def __init__(self, config: Config | dict[str, Any], vocab_size: int) -> None:
        super().__init__()
        config = as_config(config)
        self.save_hyperparameters(checkpoint_record(config, vocab_size), logger=False)
        self.config = config
        self.network = context_network(config, vocab_size)
        self.network.requires_grad_(not config.freeze_context)
        self.head = TokenHead(
            vocab_size=vocab_size,
            context_dim=config.context_dim,
            embed_dim=config.head_embed_dim,
            hidden_dim=config.head_hidden_dim,
            dropout=config.dropout,
            context_scale=config.context_scale,
            prior_count=config.prior_count,
            recall=recall_of(config),
        )  # fmt: skip
        if config.share_embedding and not config.freeze_context:
            self.network.set_submodule("embedding", self._shared_embedding())
        self.train_mean_loss = WeightedMean()
        self.val_mean_loss = WeightedMean()
        self.test_mean_loss = WeightedMean()
        self.contexts: ContextStore | None = None
        self.val_contexts: ContextStore | None = None
        self.tokenizer_json: str | None = None
        self.loss_of_tokens: _LossOfTokens = self._loss_of_tokens

    @classmethod
    def from_phase1(cls, phase1: FixedPointModule, vocab_size: int) -> Self:
        """A module that starts from the context network of Phase 1; the weights are copied.

        The token head's embedding starts from Phase 1's where it is shared, and with
        `start_embedding`.
        """
        module = cls(phase1.config, vocab_size)
        weights = phase1.network.state_dict()
        embedding = module.network.get_submodule("embedding")
        if isinstance(embedding, SharedEmbedding):
            embedding.start_from(weights.pop("embedding.weight"))
            weights["embedding.projection.weight"] = embedding.projection.weight
        elif module.config.start_embedding:
            module._shared_embedding().start_from(weights["embedding.weight"])
        module.network.load_state_dict(weights)
        return module

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (B, T) to logits (B, T, V) of the token after each."""
        logits: Tensor = self.head(self._exact_contexts(tokens), tokens)
        return logits

    def setup(self, stage: str) -> None:
        # Before weights are restored from a checkpoint, so that a run that is continued keeps its.
        if stage == "fit":
            datamodule = datamodule_of(self.trainer)
            self.head.set_token_counts(datamodule.token_counts())
            self.tokenizer_json = datamodule.tokenizer.to_str()

    def on_fit_start(self) -> None:
        datamodule = datamodule_of(self.trainer)
        if self.config.freeze_context:
            self.contexts = self._contexts_of(datamodule.own_rows(datamodule.train_rows))
            self.val_contexts = self._contexts_of(datamodule.own_rows(datamodule.val_rows))

    def on_train_epoch_start(self) -> None:
        self.train_mean_loss.reset()

    def on_train_batch_start(self, batch: TokenBatch, batch_index: int) -> None:
        # What a step draws (dropout) follows from its place alone: a run that is continued amid an
        # epoch draws the same.
        place = (self.config.random_seed, self.current_epoch, batch_index, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def training_step(self, batch: TokenBatch, batch_index: int) -> Tensor:
        if self.contexts is not None:
            contexts_BTC = self.contexts[batch.row_index]
        else:
            contexts_BTC = self._exact_contexts(batch.tokens)
        loss, nats = self.loss_of_tokens(contexts_BTC, batch.tokens)
        self.train_mean_loss.update(nats.detach(), weight=len(batch.tokens))
        if self.trainer.is_last_batch:
            # As a step's figure, which loggers have before the epoch's checkpoint is written.
            mean_loss = self.train_mean_loss.compute()
            self.log(names.TRAIN_LOSS, mean_loss, on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch: TokenBatch, batch_index: int) -> None:
        if self.val_contexts is not None:
            contexts_BTC = self.val_contexts[batch.row_index]
        else:
            contexts_BTC = self._exact_contexts(batch.tokens)
        loss = self._loss(contexts_BTC, batch.tokens)
        self.val_mean_loss.update(loss, weight=batch.tokens[:, 1:].numel())

    def on_validation_epoch_end(self) -> None:
        self._log_perplexity(self.val_mean_loss, names.VAL_LOSS, names.VAL_PPL)

    def test_step(self, batch: TokenBatch, batch_index: int) -> None:
        loss = self._loss(self._exact_contexts(batch.tokens), batch.tokens)
        self.test_mean_loss.update(loss, weight=batch.tokens[:, 1:].numel())

    def on_test_epoch_end(self) -> None:
        self._log_perplexity(self.test_mean_loss, names.TEST_LOSS, names.TEST_PPL)

    def new_optimizer(self) -> Optimizer:
        """An optimiser of all that is trained, at its highest learning rates."""
        config = self.config
        parts = [
            Part(self.head, config.phase2_learning_rate),
            Part(self.network, config.context_learning_rate),
        ]
        return phase2_optimizer(config.phase2_optimizer, parts, config.weight_decay)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        config, num_steps = self.config, int(self.trainer.estimated_stepping_batches)
        return scheduled(self.new_optimizer(), config.lr_schedule, num_steps, config.warmup_ratio)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["epoch_sums"] = self.train_mean_loss.sums_of_ranks()
        # With it, a checkpoint alone is enough to go from text to text.
        if self.tokenizer_json is not None:
            checkpoint[TOKENIZER_KEY] = self.tokenizer_json

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.train_mean_loss.restore_sums(checkpoint["epoch_sums"], self.global_rank)
        self.tokenizer_json = checkpoint.get(TOKENIZER_KEY, self.tokenizer_json)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        clip_gradients(optimizer, gradient_clip_val)

    def compile_steps(self) -> None:
        """Compiles F, and what a step computes for a full batch; results differ by rounding."""
        self.network.compile()
        self.loss_of_tokens = FullBatches(self._loss_of_tokens)

    def _shared_embedding(self) -> SharedEmbedding:
        """F's view of the token head's embedding."""
        return SharedEmbedding(
            self.head.embedding, embed_dim=self.config.embed_dim, scale=1 / EMBEDDING_STD
        )

    def _loss_of_tokens(self, contexts_BTC: Tensor, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The loss to train on and the mean nats a token, from exact contexts."""
        if not self.config.freeze_context:
            contexts_BTC = self._with_gradient(contexts_BTC, tokens_BT)
        shifted = _shifted(contexts_BTC, tokens_BT)
        return self.head.smoothed_loss(*shifted, self.config.label_smoothing)

    def _with_gradient(self, contexts_BTC: Tensor, tokens_BT: Tensor) -> Tensor:
        return with_gradient(
            self.network,
            contexts_BTC,
            self.network.embed(tokens_BT),
            num_sweeps=self.config.phase2_num_sweeps,
            carry=self.config.phase2_gradient == "memory",
        )

    def _loss(self, contexts_BTC: Tensor, tokens_BT: Tensor) -> Tensor:
        return self.head.loss(*_shifted(contexts_BTC, tokens_BT))

    def _exact_contexts(self, tokens_BT: Tensor) -> Tensor:
        with torch.no_grad():
            return solve_rows(self.network, self.network.embed(tokens_BT))

    def _contexts_of(self, rows: TokenRows) -> ContextStore:
        weight, num_sharing = self.network.embedding.weight, self.trainer.num_devices
        store = context_store(self.config, len(rows), weight, num_sharing)
        for index in torch.split(torch.arange(len(rows)), _ROWS_AT_ONCE):
            store[index] = self._exact_contexts(rows.take(index).to(self.device))
        return store

    def _log_perplexity(
        self, mean_loss: WeightedMean, loss_name: str, perplexity_name: str
    ) -> None:
        loss = mean_loss.compute()
        mean_loss.reset()
        self.log(loss_name, loss)
        self.log(perplexity_name, loss.exp())


def recall_of(config: Config) -> Recall:
    """What a configuration's token head goes back to of the text."""
    return Recall(
        config.copy_window, config.attention_window, config.attention_layers,
        config.convolution_kernel, config.query_key_norm, config.feed_forward_factor,
        config.recurrent_layers,
    )  # fmt: skip


def _shifted(contexts_BTC: Tensor, tokens_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Contexts, tokens, next tokens: position t, which has read token t, predicts token t + 1."""
    return contexts_BTC[:, :-1], tokens_BT[:, :-1], tokens_BT[:, 1:]
