"""Kneser-Ney against the formula written out with dictionaries, n-gram by n-gram."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from benchmarks.baselines.kneser_ney import KneserNey, KneserNeyGenerator
from datamodules.token_datamodule import TokenDataModule

VOCAB = 12


def rows(num_rows: int, length: int, seed: int) -> np.ndarray:
    """Tokens of very different frequency, each depending on the one before."""
    generator = np.random.default_rng(seed)
    steps = generator.zipf(1.6, (num_rows, length)).clip(max=VOCAB) - 1
    return steps.cumsum(axis=1) % VOCAB


class Reference:
    """P(word | context) by the textbook's recursion; nothing is shared with what is tested."""

    def __init__(self, rows_NT: np.ndarray, vocab_size: int, order: int) -> None:
        self.vocab_size, self.order = vocab_size, order
        self.seen = {n: Counter[tuple[int, ...]]() for n in range(2, order + 1)}
        before = defaultdict[tuple[int, ...], set[int]](set)
        for row in rows_NT.tolist():
            for n in self.seen:
                for start in range(len(row) - n + 1):
                    gram = tuple(row[start : start + n])
                    self.seen[n][gram] += 1
                    before[gram[1:]].add(gram[0])
        self.continued = {gram: len(tokens) for gram, tokens in before.items()}

    def probability(self, context: tuple[int, ...], word: int, *, top: bool = True) -> float:
        context = context[max(0, len(context) - self.order + 1) :]
        n = len(context) + 1
        counts = (
            dict(self.seen[n])
            if top
            else {gram: count for gram, count in self.continued.items() if len(gram) == n}
        )
        uniform = 1 / self.vocab_size
        lower = self.probability(context[1:], word, top=False) if context else uniform
        followers = {gram: count for gram, count in counts.items() if gram[:-1] == context}
        if not followers:
            return lower
        d = self.discounts(counts)
        count = followers.get((*context, word), 0)
        left_over = sum(d[min(c, 3)] for c in followers.values())
        return (count - d[min(count, 3)] + left_over * lower) / sum(followers.values())

    @staticmethod
    def discounts(counts: dict[tuple[int, ...], int]) -> list[float]:
        n1, n2, n3, n4 = (list(counts.values()).count(c) for c in (1, 2, 3, 4))
        if n1 == 0 or n2 == 0 or n3 == 0:
            return [0, 0.5, 1, 1.5]
        y = n1 / (n1 + 2 * n2)
        d = [0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        return d if all(0 <= d[c] <= c for c in (1, 2, 3)) else [0, 0.5, 1, 1.5]


@pytest.mark.parametrize(("num_rows", "length", "order"), [(40, 16, 5), (200, 9, 4), (3, 3, 5)])
def test_every_position_is_what_the_formula_says(num_rows: int, length: int, order: int) -> None:
    train = rows(num_rows, length, seed=0)
    reference = Reference(train, VOCAB, order)
    unseen = rows(6, 8, seed=1)[:, : max(3, length)]
    found = KneserNey(train, vocab_size=VOCAB, order=order).next_probabilities(unseen)
    longest = min(order, length) - 1
    expected = [
        [
            reference.probability(tuple(row[max(0, t - longest) : t]), row[t])
            for t in range(1, len(row))
        ]
        for row in unseen.tolist()
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_estimated_discounts_are_used_and_not_the_fallback() -> None:
    """Else the comparison above would hold for constants."""
    counts = dict(Reference(rows(200, 9, seed=0), VOCAB, 4).seen[3])
    assert Reference.discounts(counts) != [0, 0.5, 1, 1.5]


def test_probabilities_sum_to_one_on_real_text(tiny_data: TokenDataModule) -> None:
    train, val = tiny_data.train_rows.tokens.numpy(), tiny_data.val_rows.tokens.numpy()
    model = KneserNey(train, vocab_size=tiny_data.vocab_size)
    contexts = [train[0, :9], train[1, 3:7], val[0, :1], val[0, :2], val[1, :3], val[1, 5:20]]
    for context in contexts:
        distribution = model.distribution(context)
        assert distribution.min() > 0
        assert distribution.sum() == pytest.approx(1, abs=1e-12)


def test_text_that_was_seen_is_likelier_than_text_that_was_not(tiny_data: TokenDataModule) -> None:
    train, val = tiny_data.train_rows.tokens.numpy(), tiny_data.val_rows.tokens.numpy()
    model = KneserNey(train, vocab_size=tiny_data.vocab_size)
    seen, unseen = (-np.log(model.next_probabilities(r)).mean() for r in (train, val))
    assert seen < unseen < np.log(tiny_data.vocab_size)


def test_rows_are_not_joined() -> None:
    """What follows across the end of a row was never seen together."""
    train = np.array([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])
    model = KneserNey(train, vocab_size=VOCAB)
    after_last = model.distribution(np.array([4]))
    # 0 and 5 were never predicted; 5 followed 4 where the second row begins.
    assert after_last[5] == after_last[0]
    assert model.distribution(np.array([3]))[4] > 2 * after_last[4]
    assert model.num_ngrams == 2 * (4 + 3 + 2 + 1)


def test_no_probability_depends_on_what_comes_later() -> None:
    model = KneserNey(rows(40, 16, seed=0), vocab_size=VOCAB)
    first = rows(5, 12, seed=2)
    for t in range(1, 12):
        changed = first.copy()
        changed[:, t] = (changed[:, t] + 1) % VOCAB
        before, after = model.next_probabilities(first), model.next_probabilities(changed)
        np.testing.assert_array_equal(before[:, : t - 1], after[:, : t - 1])
        assert (before[:, t - 1] != after[:, t - 1]).any()


def test_the_generator_reads_on() -> None:
    model = KneserNey(rows(40, 16, seed=0), vocab_size=VOCAB)
    text = torch.from_numpy(rows(2, 12, seed=3))
    generator = KneserNeyGenerator(model)
    _, state = generator.read(text[:, :10], None)
    probabilities, state = generator.step(text[:, 10], state)
    expected = np.stack([model.distribution(row) for row in text[:, :11].numpy()])
    np.testing.assert_array_equal(probabilities.numpy(), expected)
    assert state.shape == (2, 4)


def test_rows_of_one_token_are_refused() -> None:
    with pytest.raises(ValueError, match="T=1"):
        KneserNey(np.zeros((3, 1), dtype=np.int64), vocab_size=VOCAB)
