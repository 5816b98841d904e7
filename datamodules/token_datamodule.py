"""The one DataModule that both phases share."""

from pathlib import Path

import lightning as L
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader

from config import Config, InputError
from datamodules.row_sampler import RowSampler
from datamodules.token_cache import load_tokens
from datamodules.token_files import Tokens, TokenSplits, count_tokens
from datamodules.token_loader import TrainingLoader, loader_settings, make_training_loader
from datamodules.token_rows import TokenBatch, TokenRows
from datamodules.tokenizer import vocab_size_of
from models.neighbour_embedding import neighbour_embedding

__all__ = ["TokenBatch", "TokenDataModule", "TokenRows"]

_CONTEXTS_PER_DIMENSION = 8
_MIN_VAL_TOKENS = 8_192
_EVALUATION_TOKENS = 8_192
"""Tokens in a batch that is only evaluated."""


_NEIGHBOUR_TOKENS = 2**22
"""Tokens of the training text whose neighbours are counted at most."""


class TokenDataModule(L.LightningDataModule):
    """Sequences of `max_seq_length` tokens of a corpus, with their row's index.

    Training takes the first `num_samples` sequences of its split, in an order that comes from the
    documents' content, so that a smaller `num_samples` takes a part of a larger one's. Validation
    is the same whatever `num_samples` and the seed are. Batches of an epoch depend on the seed
    and the epoch's number alone.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self._splits: TokenSplits | None = None
        self._token_counts: Tensor | None = None
        self._neighbour_embeddings: dict[int, Tensor] = {}

    def setup(self, stage: str | None = None) -> None:
        """Reads or makes the tokens, once.

        Raises:
            InputError: the corpus or the tokenizer cannot be used, or there is too little text.
        """
        if self._splits is not None:
            return
        config = self.config
        splits = load_tokens(
            config.corpus, config.tokenizer, config.vocab_size, Path(config.cache_dir)
        )
        self.train_rows = self._rows(splits.train, "training", config.num_samples)
        self.val_rows = self._rows(splits.validation, "validation", self._num_val_rows())
        self.test_rows = TokenRows(splits.test, config.max_seq_length)
        self._splits = splits

    @property
    def tokenizer(self) -> Tokenizer:
        return self._loaded().tokenizer

    @property
    def vocab_size(self) -> int:
        """V: the tokenizer's largest id plus 1."""
        return vocab_size_of(self.tokenizer)

    @property
    def num_val_tokens(self) -> int:
        return self.val_rows.num_tokens

    def token_counts(self) -> Tensor:
        """How often each token stands in the training sequences, (V,)."""
        if self._token_counts is None:
            counts = count_tokens(self._loaded(), self.train_rows.num_tokens)
            self._token_counts = torch.from_numpy(counts)
        return self._token_counts

    def neighbour_embedding(self, embed_dim: int) -> Tensor:
        """Embeddings of the tokens by those that stand before them in the training rows, (V, E).

        From the first 4 million tokens; once, whoever asks for it.
        """
        if embed_dim not in self._neighbour_embeddings:
            num_rows = -(-_NEIGHBOUR_TOKENS // self.config.max_seq_length)
            rows = TokenRows(
                self._loaded().train,
                self.config.max_seq_length,
                min(num_rows, len(self.train_rows)),
            )
            self._neighbour_embeddings[embed_dim] = neighbour_embedding(
                rows.parts(), vocab_size=self.vocab_size, embed_dim=embed_dim
            )
        return self._neighbour_embeddings[embed_dim]

    def describe(self) -> str:
        """One line: sizes of the splits that are used."""
        length = self.config.max_seq_length
        train, val = len(self.train_rows), len(self.val_rows)
        return (
            f"{self.config.corpus}: training {train} x {length} = {train * length:,} tokens, "
            f"validation {val} x {length} = {val * length:,} tokens, "
            f"vocabulary {self.vocab_size:,}"
        )

    def own_rows(self, rows: TokenRows) -> TokenRows:
        """The rows of a split that this process has: all, or of R processes every R-th."""
        return rows.part(*self._rank())

    def train_dataloader(self) -> TrainingLoader:
        rank, num_ranks = self._rank()
        sampler = RowSampler(
            len(self.train_rows),
            self.config.batch_size,
            seed=self.config.random_seed,
            rank=rank,
            num_ranks=num_ranks,
        )
        config = self.config
        rows, batch_size = self.own_rows(self.train_rows), config.batch_size // num_ranks
        return make_training_loader(rows, sampler, batch_size, config.num_workers)

    def val_dataloader(self) -> DataLoader[TokenBatch]:
        return self._evaluation_loader(self.val_rows)

    def test_dataloader(self) -> DataLoader[TokenBatch]:
        return self._evaluation_loader(self.test_rows)

    def _evaluation_loader(self, rows: TokenRows) -> DataLoader[TokenBatch]:
        config = self.config
        batch_size = max(config.batch_size, _EVALUATION_TOKENS // config.max_seq_length)
        return DataLoader(self.own_rows(rows), **loader_settings(batch_size, config.num_workers))

    def _rank(self) -> tuple[int, int]:
        """This process's place among those that train together, and their number."""
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _num_val_rows(self) -> int:
        config = self.config
        if config.num_val_samples is not None:
            return config.num_val_samples
        tokens = max(_CONTEXTS_PER_DIMENSION * config.context_dim, _MIN_VAL_TOKENS)
        return -(-tokens // config.max_seq_length)

    def _rows(self, tokens: Tokens, name: str, limit: int | None) -> TokenRows:
        length = self.config.max_seq_length
        if len(tokens) < length:
            raise InputError(
                f"--corpus {self.config.corpus!r} has {len(tokens)} tokens for {name}; it needs at "
                f"least --max-seq-length {length}."
            )
        return TokenRows(tokens, length, limit)

    def _loaded(self) -> TokenSplits:
        assert self._splits is not None, "setup() comes first"
        return self._splits
