"""The configuration checks itself, and says what would be right."""

import dataclasses
import math
import typing

import pytest

from config import PRESETS, Config, InputError
from lightning_modules.token_prediction_module import TokenPredictionModule


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("context_dim", 0),
        ("num_samples", -1),
        ("num_workers", -1),
        ("num_val_samples", 0),
        ("max_seq_length", 1),
        ("vocab_size", 256),
        ("dist_reg_weight", 1.5),
        ("dist_reg_weight", math.nan),
        ("ema_momentum", 1.0),
        ("dropout", 1.0),
        ("phase1_learning_rate", 0.0),
        ("phase2_learning_rate", math.inf),
        ("gradient_clip", -0.1),
        ("random_seed", -1),
        ("random_seed", 2**32),
        ("precision", "8-bit"),
        ("accelerator", "abacus"),
        ("context_dtype", "int8"),
        ("context_storage", "tape"),
        ("phase1_measure_every", 0),
        ("vocab_size", 2**24 + 1),
        ("context_dim", 768_000),
        ("convolution_kernel", 1_000_000),
        ("num_workers", 1000),
        ("corpus", " "),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InputError) as refused:
        dataclasses.replace(Config(), **{field: value})
    message = str(refused.value)
    assert message.startswith(f"--{field.replace('_', '-')} is {value!r}; it must be ")
    assert "\n" not in message


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().context_dim = 3  # type: ignore[misc]


def test_every_field_is_checked_or_free() -> None:
    """A field that is added must be given a rule, or be listed here as having none."""
    free = {"freeze_context", "share_embedding", "start_embedding", "query_key_norm"}
    for field in dataclasses.fields(Config):
        if field.name in free:
            continue
        bad: object = "" if isinstance(getattr(Config(), field.name), str) else -1
        with pytest.raises(InputError):
            dataclasses.replace(Config(), **{field.name: bad})


def test_every_size_has_an_end() -> None:
    """A number that is added must be given one, or be listed here as taking no memory."""
    free = {
        "num_samples", "num_val_samples", "phase1_max_epochs", "phase1_measure_every",
        "phase2_epochs", "random_seed",
    }  # fmt: skip
    for name, hint in typing.get_type_hints(Config).items():
        if hint in (int, int | None) and name not in free:
            with pytest.raises(InputError, match=" at most"):
                dataclasses.replace(Config(), **{name: 10**9})


def test_presets_are_valid_and_differ() -> None:
    made = [preset() for preset in PRESETS.values()]
    assert len({str(config) for config in made}) == len(made)
    published = PRESETS["published"]()
    assert (published.num_samples, published.max_seq_length) == (5, 128)
    assert (published.num_layers, published.context_dim) == (6, 768)


def test_the_full_preset_has_as_many_weights_as_it_says() -> None:
    config = PRESETS["full"]()
    module = TokenPredictionModule(config, config.vocab_size)
    assert sum(weight.numel() for weight in module.parameters()) == pytest.approx(1.5e6, rel=0.01)
