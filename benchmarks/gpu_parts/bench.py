"""What every part of `benchmarks/gpu.py` is given: sizes, text and device."""

import argparse
import dataclasses
import importlib.metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.solving import AnyNetwork
from benchmarks.text import text_rows
from benchmarks.training_step import new_network, train
from config import Config, InputError, Memory, published
from datamodules.token_cache import load_tokens
from datamodules.token_files import TokenSplits, read_tokens

MEMORIES: tuple[Memory, ...] = ("residual", "gated")
SEQUENCE = 128
"""Tokens of a row in training."""


class Sizes(NamedTuple):
    """What is measured; lengths in tokens, `widths` and `width` in entries of a context.

    solved: (rows, tokens) whose contexts are checked. kept: tokens whose contexts are kept.
    """

    width: int
    embed_dim: int
    solved: tuple[int, int]
    widths: tuple[int, ...]
    step_tokens: int
    steps: int
    product: int
    lengths: tuple[int, ...]
    kept: tuple[int, ...]
    num_samples: int
    backend: str
    limit: float


FULL = Sizes(
    width=768, embed_dim=256, solved=(2, 512), widths=(768, 2048), step_tokens=65_536, steps=5,
    product=8192, lengths=(1024, 4096, 16_384, 65_536), kept=(2**17, 2**20, 2**22),
    num_samples=50, backend="inductor", limit=60.0,
)  # fmt: skip
SMALL = Sizes(
    width=16, embed_dim=8, solved=(2, 32), widths=(16,), step_tokens=256, steps=1, product=64,
    lengths=(64, 128), kept=(512,), num_samples=4, backend="eager", limit=1.0,
)  # fmt: skip


class Text(NamedTuple):
    """train, unseen: (N,) tokens. counts: (V,), how often each stands in `train`."""

    train: Tensor
    unseen: Tensor
    counts: Tensor


class Bench(NamedTuple):
    """What every part is given."""

    sizes: Sizes
    text: Text
    device: torch.device
    options: argparse.Namespace

    def config(self, memory: Memory, num_layers: int, width: int, embed_dim: int) -> Config:
        # The residual memory as it was published: with a larger update, six layers hardly contract,
        # and what bfloat16 rounds in a step grows on its way.
        update_scale = published().update_scale if memory == "residual" else Config().update_scale
        return dataclasses.replace(
            Config(), memory=memory, update_scale=update_scale, num_layers=num_layers, context_dim=width, embed_dim=embed_dim,
            phase1_max_epochs=10, phase1_learning_rate=1e-3, num_samples=self.sizes.num_samples,
            # A residual memory expands under it, and what it solves is chaos.
            dist_reg_weight=0.2, contraction_weight=0.003 if memory == "gated" else 0.0,
        )  # fmt: skip

    def trained(self, memory: Memory, num_layers: int) -> AnyNetwork:
        """A network after a short Phase 1."""
        config = self.config(memory, num_layers, self.sizes.width, self.sizes.embed_dim)
        network = new_network(config, self.text.counts, self.device)
        train(network, config, text_rows(self.text.train, self.sizes.num_samples, SEQUENCE))
        return network.eval()


def load_text(corpus: str, vocab_size: int, cache_dir: Path) -> Text:
    """The corpus, or what a cache has of it.

    Raises:
        InputError: there is neither.
    """
    try:
        splits = load_tokens(corpus, "train", vocab_size, cache_dir)
    except importlib.metadata.PackageNotFoundError as error:
        newest = _newest(cache_dir)
        if newest is None:
            raise InputError(
                f"--corpus is {corpus!r}, whose package is not installed, and --cache-dir "
                f"{str(cache_dir)!r} holds no tokens; give the one or the other."
            ) from error
        splits = newest
    trained, unseen = (
        torch.from_numpy(t.astype(np.int64)) for t in (splits.train, splits.validation)
    )
    vocabulary = splits.tokenizer.get_vocab_size(with_added_tokens=True)
    return Text(trained, unseen, torch.bincount(trained, minlength=vocabulary))


def _newest(cache_dir: Path) -> TokenSplits | None:
    files = sorted((cache_dir / "tokens").glob("*.tokens"), key=lambda file: file.stat().st_mtime)
    return read_tokens(files[-1]) if files else None
