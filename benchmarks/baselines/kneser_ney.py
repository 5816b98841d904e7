"""Interpolated modified Kneser-Ney smoothing over sorted arrays.

Chen and Goodman, An Empirical Study of Smoothing Techniques (1999), section 3.

Shapes: N rows of T tokens, V = vocabulary.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Where a text is too short or too regular for an estimate; those of KenLM's discount_fallback."""


class _Counts(NamedTuple):
    """How often each n-gram of an order counts, and what its contexts leave to the order below.

    counts: (number of n-grams,), in the order of their keys.
    totals, left_over: (number of contexts,), a context's counts in all, and the sum of discounts.
    """

    counts: Integers
    discounts: Floats
    totals: Floats
    left_over: Floats


class KneserNey:
    """P(next token | up to order - 1 tokens before it), estimated from rows of tokens.

    No n-gram reaches over the start of a row, as no neural model's context does. So the first
    positions have fewer tokens before them than the order takes: each is predicted by the
    interpolated model of its own order, occurrences at the top and continuations below.

    An n-gram's key is the number of its first n - 1 tokens among their kind, times V, plus its last
    token: keys fit into 64 bits whatever order and V are.

    Args:
        rows_NT: (N, T) token ids below V, T at least 2.
        vocab_size: V.
        order: n of the longest n-grams, 2 or more.
    """

    def __init__(self, rows_NT: Integers, *, vocab_size: int, order: int = 5) -> None:
        if order < 2 or rows_NT.shape[1] < 2:
            raise ValueError(f"order={order} and T={rows_NT.shape[1]} must be 2 or more")
        self.vocab_size = vocab_size
        self.order = order
        rows_NT = np.asarray(rows_NT, dtype=np.int64)
        self._keys: list[Integers] = [np.arange(vocab_size)]
        self._occurrences: list[_Counts] = []
        self._continuations: list[_Counts] = []
        ids = rows_NT
        for _ in range(2, min(order, rows_NT.shape[1]) + 1):
            ids = self._add_order(ids, rows_NT)

    @property
    def num_ngrams(self) -> int:
        """N-grams of two tokens and more that are kept, with a count of their own each."""
        return sum(len(keys) for keys in self._keys[1:])

    def next_probabilities(self, rows_NT: Integers) -> Floats:
        """P of each token of the rows but the first, given those before it: (N, T - 1)."""
        rows_NT = np.asarray(rows_NT, dtype=np.int64)
        next_tokens = rows_NT[:, 1:]
        contexts = rows_NT[:, :-1]
        lower = self._interpolate(
            self._continuations[0], np.zeros_like(next_tokens), next_tokens, 1 / self.vocab_size
        )
        result = lower
        for index in range(len(self._occurrences)):
            # Contexts of index + 1 tokens, numbered by where they start; -1 is one never seen.
            if index > 0:
                contexts = self._find(index, contexts[:, :-1], rows_NT[:, index:-1])
                lower = lower[:, 1:]
            grams = self._find(index + 1, contexts, next_tokens[:, index:])
            top = self._interpolate(self._occurrences[index], contexts, grams, lower)
            result = np.concatenate([result[:, :index], top], axis=1)
            if index + 1 < len(self._continuations):
                lower = self._interpolate(self._continuations[index + 1], contexts, grams, lower)
        return result

    def distribution(self, context: Integers) -> Floats:
        """P of every token after a context of one token or more: (V,)."""
        rows = np.empty((self.vocab_size, len(context[1 - self.order :]) + 1), dtype=np.int64)
        rows[:, :-1] = context[1 - self.order :]
        rows[:, -1] = np.arange(self.vocab_size)
        return self.next_probabilities(rows)[:, -1]

    def _add_order(self, ids: Integers, rows_NT: Integers) -> Integers:
        """Counts the n-grams one token longer than those of `ids`.

        `ids[:, t]` is the number of the n-gram that starts at t, and so is that of the result.
        """
        length = rows_NT.shape[1] - ids.shape[1] + 1
        keys, first, inverse, counts = np.unique(
            ids[:, :-1] * self.vocab_size + rows_NT[:, length:],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        num_contexts = len(self._keys[-1])
        # Without its first token each n-gram that differs adds one to the continuations of the rest.
        continuations = np.bincount(ids[:, 1:].flat[first], minlength=num_contexts)
        contexts = self._keys[-1] // self.vocab_size
        num_below = 1 if len(self._keys) == 1 else len(self._keys[-2])
        self._continuations.append(_summed(continuations, contexts, num_below))
        self._occurrences.append(_summed(counts, keys // self.vocab_size, num_contexts))
        self._keys.append(keys)
        longer: Integers = inverse.reshape(ids[:, 1:].shape)
        return longer

    def _find(self, index: int, contexts: Integers, words: Integers) -> Integers:
        """Numbers of the n-grams context + word; -1 where there is none."""
        keys = self._keys[index]
        wanted = contexts * self.vocab_size + words
        place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        found: Integers = np.where((contexts >= 0) & (keys[place] == wanted), place, -1)
        return found

    @staticmethod
    def _interpolate(
        counts: _Counts, contexts: Integers, grams: Integers, lower: Floats | float
    ) -> Floats:
        """The discounted share of an n-gram, and what is left over shared out as `lower` says."""
        count = np.where(grams >= 0, counts.counts[grams], 0)
        total = np.where(contexts >= 0, counts.totals[contexts], 0.0)
        left_over = np.where(total > 0, counts.left_over[contexts], 1.0)
        kept = count - counts.discounts[count.clip(max=3)]
        return np.asarray((kept + left_over * lower) / np.where(total > 0, total, 1.0))


class KneserNeyGenerator:
    """Generates: the state is the last order - 1 tokens, (B, up to order - 1)."""

    def __init__(self, model: KneserNey) -> None:
        self.model = model

    def read(self, tokens_BT: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """The state, twice."""
        text = tokens_BT if state is None else torch.cat([state, tokens_BT], dim=1)
        state = text[:, 1 - self.model.order :]
        return state, state

    def step(self, tokens_B: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """One token a row: probabilities (B, V), and the state."""
        _, state = self.read(tokens_B.unsqueeze(1), state)
        return torch.stack(
            [torch.from_numpy(self.model.distribution(row.cpu().numpy())) for row in state]
        ), state


def _summed(counts: Integers, contexts: Integers, num_contexts: int) -> _Counts:
    discounts = _discounts(counts)
    discounted = discounts[counts.clip(max=3)]
    return _Counts(
        counts,
        discounts,
        np.bincount(contexts, counts, num_contexts).astype(np.float64),
        np.bincount(contexts, discounted, num_contexts).astype(np.float64),
    )


def _discounts(counts: Integers) -> Floats:
    """What is taken off counts of 0, 1, 2, and 3 or more: Chen and Goodman's equation 17."""
    n1, n2, n3, n4 = (int((counts == count).sum()) for count in (1, 2, 3, 4))
    if 0 in (n1, n2, n3):
        return np.array([0.0, *_FALLBACK_DISCOUNTS])
    share = n1 / (n1 + 2 * n2)
    estimates = [1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3]
    if any(not 0 <= estimate <= top for top, estimate in enumerate(estimates, start=1)):
        return np.array([0.0, *_FALLBACK_DISCOUNTS])
    return np.array([0.0, *estimates])
