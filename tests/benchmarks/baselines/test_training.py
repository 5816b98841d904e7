"""The training loop of the baselines, sizes and variants of ours, the timing of generation."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from benchmarks.baselines.generation import milliseconds_a_token
from benchmarks.baselines.lstm import LSTM
from benchmarks.baselines.ours import (
    VARIANTS,
    ContextGenerator,
    parse_overrides,
    sized,
    train_ours,
)
from benchmarks.baselines.sizing import count_parameters
from benchmarks.baselines.training import BestEpoch, Recipe, Rows, mean_loss, smoothed_loss, train
from benchmarks.baselines.with_copying import WithCopying
from config import Config, InputError
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.token_prediction_module import TokenPredictionModule

RECIPE = Recipe(
    learning_rate=0.02, weight_decay=0.1, num_epochs=6, patience=6, batch_size=4, seed=0
)


def rows_of(data: TokenDataModule) -> Rows:
    return Rows(data.train_rows.tokens, data.val_rows.tokens)


def lstm(data: TokenDataModule) -> LSTM:
    torch.manual_seed(3)
    model = LSTM(vocab_size=data.vocab_size, width=16, dropout=0.1)
    model.embedding.set_token_counts(data.token_counts())
    return model


def test_training_learns_and_keeps_its_best_epoch(tiny_data: TokenDataModule) -> None:
    rows = rows_of(tiny_data)
    before = mean_loss(lstm(tiny_data), rows.train)
    training = train(lstm(tiny_data), rows, RECIPE)
    assert mean_loss(training.model, rows.train) < before - 0.1
    assert mean_loss(training.model, rows.val) == training.val_loss
    assert 1 <= training.best_epoch <= training.num_epochs == training.num_passes == 6


def test_a_seed_decides_order_and_dropout(tiny_data: TokenDataModule) -> None:
    recipe = dataclasses.replace(RECIPE, num_epochs=2)
    first, again, other = (
        train(lstm(tiny_data), rows_of(tiny_data), dataclasses.replace(recipe, seed=seed)).val_loss
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_training_that_gets_worse_stops_and_goes_back(tiny_data: TokenDataModule) -> None:
    recipe = dataclasses.replace(RECIPE, learning_rate=1.0, num_epochs=40, patience=2)
    training = train(lstm(tiny_data), rows_of(tiny_data), recipe)
    assert training.num_epochs == training.best_epoch + 2 < 40
    assert mean_loss(training.model, tiny_data.val_rows.tokens) == training.val_loss


def test_a_loss_that_is_no_number_is_told() -> None:
    best = BestEpoch(patience=2)
    best.look(nn.Linear(1, 1), 1.0)
    with pytest.raises(FloatingPointError, match="nan after epoch 2"):
        best.look(nn.Linear(1, 1), math.nan)


def test_the_mean_loss_is_of_all_predicted_tokens(tiny_data: TokenDataModule) -> None:
    """Whatever the sizes of batches are; a model of frequencies has their cross-entropy."""
    model = lstm(tiny_data)
    with torch.no_grad():
        model.embedding.weight.zero_()
    tokens = tiny_data.train_rows.tokens.repeat(40, 1)
    expected = -model.embedding.bias.log_softmax(0)[tokens[:, 1:]].mean().item()
    assert mean_loss(model, tokens) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("fixed", "target"),
    [((), 3e4), ((), 1.5e6), (("context_dim",), 1.5e6), (("embed_dim", "head_embed_dim"), 1e7)],
)
def test_our_sizes_are_scaled_to_the_number_of_parameters(
    fixed: tuple[str, ...], target: float
) -> None:
    config = sized(Config(), fixed, 4096, target)
    module = TokenPredictionModule(config, 4096)
    assert abs(count_parameters(module) - target) <= 0.05 * target
    for name in fixed:
        assert getattr(config, name) == getattr(Config(), name)


def test_what_cannot_be_met_is_told() -> None:
    with pytest.raises(InputError, match="met to 5 % by no width"):
        sized(Config(), ("context_dim",), 4096, 1e5)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_train_what_they_say(
    name: str, tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    variant = VARIANTS[name]
    # So many dimensions that frequent tokens have narrower gates.
    config = dataclasses.replace(tiny_config, context_dim=64)
    training = train_ours(config, tiny_data, variant, patience=5)
    torch.manual_seed(config.random_seed)
    drawn = FixedPointModule(config, tiny_data.vocab_size).network.layers.state_dict()
    assert isinstance(training.model, TokenPredictionModule)
    network = training.model.network
    trained = variant.network == "trained"
    stays = not trained and variant.freeze_context
    for weight, value in network.layers.state_dict().items():
        assert torch.equal(value, drawn[weight]) == stays
    assert network.gates().unique().numel() > 1  # type: ignore[union-attr]  # gated by default
    assert training.num_passes == training.num_epochs + (3 if trained else 0)
    loss = mean_loss(training.model, tiny_data.val_rows.tokens)
    assert loss == pytest.approx(training.val_loss, rel=1e-4)
    assert loss < math.log(tiny_data.vocab_size)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_smoothing_is_torchs_own(tiny_data: TokenDataModule, label_smoothing: float) -> None:
    model, rows = lstm(tiny_data).eval(), tiny_data.val_rows.tokens
    expected = nn.functional.cross_entropy(
        model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten(), label_smoothing=label_smoothing
    )
    torch.testing.assert_close(smoothed_loss(model, rows, label_smoothing), expected)


def test_what_is_copied_is_not_smoothed(tiny_data: TokenDataModule) -> None:
    """A baseline that copies is trained as our own head is."""
    model, rows = WithCopying(lstm(tiny_data), 8).eval(), tiny_data.val_rows.tokens
    plain, smoothed = (smoothed_loss(model, rows, share).item() for share in (0.0, 0.3))
    assert plain == pytest.approx(mean_loss(model, rows))
    own, half = (smoothed_loss(model.model, rows, share).item() for share in (0.0, 0.3))
    assert smoothed - plain == pytest.approx(half - own, rel=1e-4)


@pytest.mark.parametrize("copy_window", [0, 3])
def test_our_generator_gives_the_models_own_logits(
    tiny_config: Config, tiny_data: TokenDataModule, copy_window: int
) -> None:
    config = dataclasses.replace(tiny_config, copy_window=copy_window)
    model = train_ours(config, tiny_data, VARIANTS["ours-untrained"], 5).model.eval()
    assert isinstance(model, TokenPredictionModule)
    # After so little training the head hardly looks at contexts.
    nn.init.normal_(model.head.update.weight)
    text = tiny_data.val_rows.tokens[:2]
    generator = ContextGenerator(model)
    with torch.no_grad():
        expected = model(text)
        _, state = generator.read(text[:, :18], None)
        _, state = generator.read(text[:, 18:20], state)
        logits, _ = generator.step(text[:, 20], state)
        first, _ = generator.step(text[:, 0], None)
    torch.testing.assert_close(logits, expected[:, 20], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(first, expected[:, 0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("pair", "name", "value"),
    [
        ("context_dim=256", "context_dim", 256),
        ("--update-scale=0.5", "update_scale", 0.5),
        ("memory=residual", "memory", "residual"),
        ("phase1_measure_every=none", "phase1_measure_every", None),
        ("phase1_measure_every=2", "phase1_measure_every", 2),
    ],
)
def test_overrides_are_read(pair: str, name: str, value: object) -> None:
    assert parse_overrides([pair], taken=()) == {name: value}


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        ("context_dim", "must be FIELD=VALUE"),
        ("width=3", "must be FIELD=VALUE"),
        ("context_dim=many", "must be a whole number"),
        ("update_scale=big", "must be a number"),
        ("freeze_context=perhaps", "must be true or false"),
        ("memory=elephant", "must be one of"),
        ("dropout=1.5", "must be at least 0 and below 1"),
        ("corpus=other.txt", "corpus is the same for all models"),
    ],
)
def test_overrides_that_are_wrong_are_told(pair: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse_overrides([pair], taken=("corpus",))


class Counting:
    """Counts the tokens it reads, in order; where it stood at each step."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def read(self, tokens_BT: Tensor, state: int | None) -> tuple[Tensor, int]:
        for token in tokens_BT[0].tolist():
            state = self.check(token, state)
        return tokens_BT, state or 0

    def step(self, tokens_B: Tensor, state: int | None) -> tuple[Tensor, int]:
        self.steps.append(state or 0)
        return tokens_B.unsqueeze(0), self.check(int(tokens_B), state)

    def check(self, token: int, state: int | None) -> int:
        assert token == (state or 0) % 300, "text in order, and again from its start"
        return (state or 0) + 1


@pytest.mark.parametrize("position", [3, 100, 1000])
def test_generation_is_timed_where_it_says(position: int) -> None:
    generator = Counting()
    assert milliseconds_a_token(generator, torch.arange(300), position) > 0
    assert generator.steps[-30:] == list(range(position, position + 30))
