"""What holds of LSTM, GPT and minGRU alike: size, causality, generation, dropout."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.baselines.gpt import GPT
from benchmarks.baselines.lstm import LSTM
from benchmarks.baselines.min_gru import MinGRU
from benchmarks.baselines.sizing import count_parameters, solve_size
from benchmarks.baselines.with_copying import WithCopying
from config import InputError

VOCAB, WINDOW = 50, 24
Model = LSTM | GPT | MinGRU | WithCopying


def lstm(size: int, dropout: float = 0.0) -> Model:
    return LSTM(vocab_size=VOCAB, width=size, dropout=dropout)


def gpt(size: int, dropout: float = 0.0) -> Model:
    return GPT(vocab_size=VOCAB, width=4 * size, dropout=dropout, window=WINDOW)


def min_gru(size: int, dropout: float = 0.0) -> Model:
    return MinGRU(vocab_size=VOCAB, width=size, dropout=dropout)


def copying_lstm(size: int, dropout: float = 0.0) -> Model:
    return WithCopying(LSTM(vocab_size=VOCAB, width=size, dropout=dropout), 5)


every_model = pytest.mark.parametrize("make", [lstm, gpt, min_gru, copying_lstm])
Make = Callable[..., Model]


def trained_like(model: Model) -> Model:
    """With weights large enough for every part to have a say."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model.double().eval()


def tokens(num_rows: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(VOCAB, (num_rows, length), generator=generator)


@every_model
@pytest.mark.parametrize("target", [1e5, 1.5e6, 1e7])
def test_the_width_has_the_number_of_parameters(make: Make, target: float) -> None:
    model = make(solve_size(make, target))
    assert abs(count_parameters(model) - target) <= 0.05 * target
    # The output weights are the embeddings themselves: one matrix with V rows.
    assert sum(VOCAB in weight.shape[:1] and weight.ndim == 2 for weight in model.parameters()) == 1


@pytest.mark.parametrize(("target", "size"), [(1000, 10), (1049, 10), (1051, 11), (99, 1)])
def test_the_nearest_size_is_taken(target: float, size: int) -> None:
    assert solve_size(lambda size: nn.Embedding(size, 100), target) == size


def test_a_number_of_parameters_that_no_width_has_is_told() -> None:
    with pytest.raises(InputError, match="the nearest has"):
        solve_size(gpt, 100)


@every_model
def test_changing_a_token_changes_no_logit_before_it(make: Make) -> None:
    model = trained_like(make(8))
    text = tokens(2, 12)
    before = model(text)
    for t in range(12):
        changed = text.clone()
        changed[:, t] = (changed[:, t] + 1) % VOCAB
        after = model(changed)
        torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-12)
        assert not torch.allclose(after[:, t], before[:, t])
        assert t == 11 or not torch.allclose(after[:, 11], before[:, 11], rtol=0, atol=1e-9)


@every_model
def test_steps_give_the_logits_of_a_whole_row(make: Make) -> None:
    model = trained_like(make(8))
    text = tokens(3, WINDOW)
    whole = model(text)
    state = None
    for t in range(WINDOW):
        logits, state = model.step(text[:, t], state)
        torch.testing.assert_close(logits, whole[:, t], rtol=1e-9, atol=1e-9)


@every_model
@pytest.mark.parametrize("cut", [1, 7, 40])
def test_reading_in_two_parts_gives_the_same_as_in_one(make: Make, cut: int) -> None:
    """Beyond GPT's window too, where both see the same last tokens."""
    model = trained_like(make(8))
    text = tokens(2, 60)
    whole, _ = model.read(text, None)
    first, state = model.read(text[:, :cut], None)
    second, _ = model.read(text[:, cut:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=1e-9, atol=1e-9)


def test_gpt_keeps_no_more_than_its_window() -> None:
    model = trained_like(gpt(8))
    _, state = model.read(tokens(2, 60), None)
    _, state = model.step(tokens(2, 1)[:, 0], state)
    assert {keys.shape[2] for keys, _ in state.keys_values} == {WINDOW - 1}
    assert state.num_tokens == 61


def test_a_gpt_layer_forgets_what_is_behind_the_window() -> None:
    """Four layers reach over four windows, and not a token further."""
    model = trained_like(gpt(8))
    text = tokens(1, 120)
    reach = 4 * (WINDOW - 1)
    for t, is_seen in ((119 - reach, True), (118 - reach, False)):
        changed = text.clone()
        changed[:, t] = (changed[:, t] + 1) % VOCAB
        difference = (model(changed)[:, -1] - model(text)[:, -1]).abs().max()
        assert (difference > 0) == is_seen


@every_model
def test_dropout_acts_in_training_alone(make: Make) -> None:
    model = make(8, dropout=0.5)
    text = tokens(2, 12)
    assert not torch.equal(model(text), model(text))
    model.eval()
    assert torch.equal(model(text), model(text))


@every_model
def test_without_features_a_model_predicts_frequencies(make: Make) -> None:
    """The bias starts at the tokens' log frequencies."""
    model = make(8)
    counts = torch.arange(VOCAB)
    model.embedding.set_token_counts(counts)
    logits = model.embedding.logits(torch.zeros(8 if make is not gpt else 32))
    expected = (counts + 1) / (counts + 1).sum()
    torch.testing.assert_close(logits.softmax(-1), expected)
