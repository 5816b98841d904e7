"""The one DataModule that both phases share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from config import Config, InputError
from datamodules.row_sampler import RowSampler
from datamodules.token_cache import Tokens, TokenSplits, load_tokens

_CONTEXTS_PER_DIMENSION = 8
_MIN_VAL_TOKENS = 8_192
_EVALUATION_TOKENS = 8_192
"""Tokens in a batch that is only evaluated."""


class TokenBatch(NamedTuple):
    """tokens: (B, T) int64. row_index: (B,) int64, each row's number among the process's own."""

    tokens: Tensor
    row_index: Tensor


class TokenRows(Dataset[TokenBatch]):
    """Rows of a split, (N, T) in memory; a batch is one indexing, with no copy a row."""

    def __init__(self, tokens_NT: Tensor) -> None:
        self.tokens = tokens_NT

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitems__(self, indices: Sequence[int]) -> TokenBatch:
        index = torch.as_tensor(indices)
        return TokenBatch(self.tokens[index], index)


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
        self.test_rows = TokenRows(_cut(splits.test, config.max_seq_length, None))
        self._splits = splits

    @property
    def tokenizer(self) -> Tokenizer:
        return self._loaded().tokenizer

    @property
    def vocab_size(self) -> int:
        """Entries of the tokenizer, its added tokens counted in."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def num_val_tokens(self) -> int:
        return self.val_rows.tokens.numel()

    def token_counts(self) -> Tensor:
        """How often each token stands in the training sequences, (V,)."""
        return torch.bincount(self.train_rows.tokens.flatten(), minlength=self.vocab_size)

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
        """The rows of a split that this process has: all, or every so-manieth of several."""
        rank, num_ranks = self._rank()
        return rows if num_ranks == 1 else TokenRows(rows.tokens[rank::num_ranks])

    def train_dataloader(self) -> DataLoader[TokenBatch]:
        rank, num_ranks = self._rank()
        sampler = RowSampler(
            len(self.train_rows),
            self.config.batch_size,
            seed=self.config.random_seed,
            rank=rank,
            num_ranks=num_ranks,
        )
        return self._loader(self.train_rows, sampler)

    def val_dataloader(self) -> DataLoader[TokenBatch]:
        return self._loader(self.val_rows)

    def test_dataloader(self) -> DataLoader[TokenBatch]:
        return self._loader(self.test_rows)

    def _loader(self, rows: TokenRows, sampler: RowSampler | None = None) -> DataLoader[TokenBatch]:
        batch_size = self.config.batch_size // self._rank()[1]
        if sampler is None:
            batch_size = max(batch_size, _EVALUATION_TOKENS // self.config.max_seq_length)
        return DataLoader(
            self.own_rows(rows),
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=_as_it_is,
            # Of its own: a loader draws a seed for workers that it does not have, from the numbers
            # that dropout draws from, and not equally often in a run that is continued.
            generator=torch.Generator(),
        )

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

    def _rows(self, tokens: Tokens, name: str, limit: int) -> TokenRows:
        length = self.config.max_seq_length
        if len(tokens) < length:
            raise InputError(
                f"--corpus {self.config.corpus!r} has {len(tokens)} tokens for {name}; it needs at "
                f"least --max-seq-length {length}."
            )
        return TokenRows(_cut(tokens, length, limit))

    def _loaded(self) -> TokenSplits:
        assert self._splits is not None, "setup() comes first"
        return self._splits


def _cut(tokens: Tokens, length: int, limit: int | None) -> Tensor:
    num_rows = len(tokens) // length
    num_rows = num_rows if limit is None else min(num_rows, limit)
    return torch.from_numpy(tokens[: num_rows * length]).long().view(num_rows, length)


def _as_it_is(batch: Any) -> Any:
    """`__getitems__` has put the batch together already."""
    return batch
