"""Phase 1 in a real Trainer."""

import dataclasses
import math
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from callbacks.convergence_stopping import ConvergenceStopping
from config import Config, Memory
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import metric_names as names
from lightning_modules.fixed_point_module import FixedPointModule
from models.context_network import normalise
from models.contraction import lasting_disturbance
from models.diagnostics import effective_rank
from models.fixed_point import solve_rows
from models.gated_network import GatedContextNetwork
from models.sweeps import quasi_newton_step, sweep
from tuning.training import NO_LOGGER, fit_phase


def fit(
    config: Config, data: TokenDataModule, num_epochs: int = 3
) -> tuple[FixedPointModule, L.Trainer]:
    L.seed_everything(config.random_seed, verbose=False)
    module = FixedPointModule(config, data.vocab_size)
    trainer = fit_phase(
        module, data, config=config, num_epochs=num_epochs, logger=NO_LOGGER, callbacks=[]
    )
    return module, trainer


def weights(module: FixedPointModule) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.network.layers.parameters()])


def test_weights_move(tiny_config: Config, tiny_data: TokenDataModule) -> None:
    L.seed_everything(tiny_config.random_seed, verbose=False)
    untrained = FixedPointModule(tiny_config, tiny_data.vocab_size)
    trained, _ = fit(tiny_config, tiny_data)
    assert not torch.equal(weights(untrained), weights(trained))
    scales = [float(m.network.get_parameter("log_scale")) for m in (untrained, trained)]
    assert scales[0] != scales[1]


def test_gates_wait_for_contexts(tiny_config: Config, tiny_data: TokenDataModule) -> None:
    """Of contexts that are zero gates keep nothing: in the first sweep their gradient is rounding."""
    module, _ = fit(tiny_config, tiny_data, num_epochs=1)
    scale = float(module.network.get_parameter("log_scale").exp())
    assert scale == pytest.approx(tiny_config.update_scale)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_embeddings_come_from_the_training_text_and_are_not_trained(
    tiny_config: Config, tiny_data: TokenDataModule, share: float
) -> None:
    config = dataclasses.replace(tiny_config, neighbour_share=share)
    L.seed_everything(config.random_seed, verbose=False)
    random = normalise(FixedPointModule(config, tiny_data.vocab_size).network.embedding.weight)
    neighbours = tiny_data.neighbour_embedding(config.embed_dim)
    trained = normalise(fit(config, tiny_data)[0].network.embedding.weight)
    stands_after = neighbours.any(dim=1)
    assert 0 < stands_after.sum() < len(stands_after)
    torch.testing.assert_close(trained[~stands_after], random[~stands_after], rtol=0, atol=1e-3)
    for expected, part in ((normalise(neighbours), share), (random, 1 - share)):
        cosine = cosine_similarity(trained, expected, dim=1)[stands_after].mean()
        assert float(cosine) == pytest.approx(part**0.5, abs=0.15)


@pytest.mark.parametrize("momentum", [0.0, 0.99])
def test_dist_reg_weight_changes_the_weights(
    tiny_config: Config, tiny_data: TokenDataModule, momentum: float
) -> None:
    low, high = (
        fit(dataclasses.replace(tiny_config, dist_reg_weight=w, ema_momentum=momentum), tiny_data)
        for w in (0.1, 0.9)
    )
    assert (weights(low[0]) - weights(high[0])).abs().max() > 1e-4


def test_diversity_alone_moves_the_weights(tiny_config: Config, tiny_data: TokenDataModule) -> None:
    """With no convergence term: statistics that were detached would leave every weight as it is."""
    config = dataclasses.replace(tiny_config, dist_reg_weight=1.0)
    module, _ = fit(config, tiny_data)
    L.seed_everything(config.random_seed, verbose=False)
    assert not torch.equal(weights(FixedPointModule(config, tiny_data.vocab_size)), weights(module))


def test_same_seed_equal_other_seed_different(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    first, again = (fit(tiny_config, tiny_data)[0] for _ in range(2))
    other, _ = fit(dataclasses.replace(tiny_config, random_seed=1), tiny_data)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


@pytest.mark.parametrize("memory", ["residual", "gated"])
def test_contexts_carry_over_from_epoch_to_epoch(
    tiny_config: Config, tiny_data: TokenDataModule, memory: Memory
) -> None:
    """With a learning rate near 0, k epochs are k sweeps from zero, each row at its own place."""
    config = dataclasses.replace(tiny_config, phase1_learning_rate=1e-30, memory=memory)
    module, _ = fit(config, tiny_data, num_epochs=3)
    embeddings = module.network.embed(tiny_data.train_rows.tokens)
    expected = torch.zeros(*embeddings.shape[:2], config.context_dim)
    for _ in range(3):
        swept = sweep(module.network, expected, embeddings)
        expected = quasi_newton_step(module.network, expected, swept, embeddings)
    assert module.contexts is not None
    torch.testing.assert_close(module.contexts.rows, expected.detach())


def test_a_module_that_is_loaded_to_be_looked_at_holds_no_contexts(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    """They are most of a checkpoint, and serve training alone."""
    module, trainer = fit(tiny_config, tiny_data)
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    loaded = FixedPointModule.load_from_checkpoint(path, weights_only=True)
    assert loaded._restored is None
    tokens = tiny_data.val_rows.tokens
    torch.testing.assert_close(loaded(tokens), module(tokens))


def test_logged_rank_is_that_of_the_exact_contexts(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    module, trainer = fit(tiny_config, tiny_data)
    with torch.no_grad():
        embeddings = module.network.embed(tiny_data.val_rows.tokens)
        contexts = solve_rows(module.network, embeddings)
    expected = effective_rank(contexts.flatten(0, 1))
    logged = float(trainer.callback_metrics[names.PHASE1_EFFECTIVE_RANK])
    assert logged == pytest.approx(expected, rel=1e-4)
    ratio = float(trainer.callback_metrics[names.PHASE1_EFFECTIVE_RANK_RATIO])
    assert ratio == pytest.approx(expected / tiny_config.context_dim, rel=1e-4)


def test_every_figure_is_logged_and_finite(tiny_config: Config, tiny_data: TokenDataModule) -> None:
    _, trainer = fit(tiny_config, tiny_data)
    expected = {value for name, value in vars(names).items() if name.startswith("PHASE1_")}
    assert expected <= trainer.callback_metrics.keys()
    assert all(math.isfinite(float(trainer.callback_metrics[name])) for name in expected)


@pytest.mark.parametrize(
    ("measure_every", "min_converged_ratio", "expected"),
    [(1, 1.0, [1, 2, 3, 4]), (3, 1.0, [3, 4]), (100, 1.0, [4]), (100, 0.0, [1, 2])],
)
def test_unseen_text_is_measured_in_turn_and_after_the_last_sweep(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    monkeypatch: pytest.MonkeyPatch,
    measure_every: int,
    min_converged_ratio: float,
    expected: list[int],
) -> None:
    """A minimum of 0 stops after the second sweep, which must have its figures as well."""
    config = dataclasses.replace(
        tiny_config,
        phase1_measure_every=measure_every,
        phase1_min_converged_ratio=min_converged_ratio,
        # No position is ever below it: only a minimum of 0 stops.
        phase1_convergence_threshold=1e-30,
    )
    measured = []
    measure = FixedPointModule._measure

    def counted(self: FixedPointModule, embeddings: Tensor) -> None:
        measured.append(self.current_epoch + 1)
        measure(self, embeddings)

    monkeypatch.setattr(FixedPointModule, "_measure", counted)
    module = FixedPointModule(config, tiny_data.vocab_size)
    trainer = fit_phase(
        module,
        tiny_data,
        config=config,
        num_epochs=4,
        logger=NO_LOGGER,
        callbacks=[ConvergenceStopping(min_converged_ratio)],
    )
    assert measured == expected
    assert names.PHASE1_EFFECTIVE_RANK in trainer.callback_metrics


def test_few_training_tokens_are_measured_rarely(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    """128 unseen tokens for 256 training tokens: of a third as many every second sweep."""
    module, trainer = fit(tiny_config, tiny_data)
    assert module.trainer is trainer
    assert module._measure_every() == 2


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_clip_and_learn(
    tiny_config: Config, tiny_data: TokenDataModule, precision: str
) -> None:
    """A fused optimiser steps over gradients that were clipped, under autocast too."""
    whole, _ = fit(tiny_config, tiny_data)
    config = dataclasses.replace(tiny_config, precision=precision)
    other, trainer = fit(config, tiny_data)
    assert trainer.optimizers[0].defaults["fused"]
    difference = (weights(whole) - weights(other).float()).abs().max()
    assert 0 < difference < 0.03
    clipped, _ = fit(dataclasses.replace(config, gradient_clip=1e-8), tiny_data)
    assert not torch.equal(weights(clipped), weights(other))


@pytest.mark.parametrize("contraction_weight", [0.0, 0.05])
def test_loss_is_the_weighted_sum(tiny_config: Config, contraction_weight: float) -> None:
    config = dataclasses.replace(
        tiny_config, dist_reg_weight=0.3, contraction_weight=contraction_weight, batch_size=8
    )
    data = TokenDataModule(config)  # all rows in a batch: what lasts is not linear
    data.setup()
    _, trainer = fit(config, data)
    figures = trainer.callback_metrics
    lasting = lasting_disturbance(figures[names.PHASE1_CONTRACTION])
    convergence = figures[names.PHASE1_RESIDUAL] + contraction_weight * lasting
    expected = 0.7 * convergence + 0.3 * figures[names.PHASE1_DIVERSITY]
    assert float(figures[names.PHASE1_TRAIN_LOSS]) == pytest.approx(float(expected), rel=1e-4)
    assert (contraction_weight > 0) == (float(figures[names.PHASE1_CONTRACTION]) > 0)


def test_weight_decides_how_long_contexts_remember(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    """Convergence makes gates wide, diversity makes them narrow."""
    scales = []
    for weight in (0.0, 1.0):
        config = dataclasses.replace(
            tiny_config, dist_reg_weight=weight, contraction_weight=0.1, gradient_clip=0.0
        )
        module, _ = fit(config, tiny_data, num_epochs=15)
        scales.append(float(module.network.get_parameter("log_scale").exp()))
    assert scales[0] > tiny_config.update_scale > scales[1]


def test_gated_memory_takes_its_gates_from_the_training_text_and_learns(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    # Wide enough for a token to be more frequent than 1 / context_dim.
    config = dataclasses.replace(
        tiny_config, memory="gated", diversity_loss="log_det", dist_reg_weight=1.0, context_dim=256
    )
    module, _ = fit(config, tiny_data)
    assert isinstance(module.network, GatedContextNetwork)
    gates = module.network.gates()
    counts = tiny_data.token_counts()
    assert gates[counts.argmax()] == gates.min()
    assert gates.max() > gates.min()
    L.seed_everything(config.random_seed, verbose=False)
    untrained = FixedPointModule(config, tiny_data.vocab_size)
    assert not torch.equal(weights(untrained), weights(module))


def test_sweeps_of_a_long_memory_stay_at_the_fixed_point(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    """Rounding errors that grew from sweep to sweep would be as large as contexts after twenty."""
    config = dataclasses.replace(
        tiny_config, context_dim=256, update_scale=0.3, phase1_learning_rate=1e-30
    )
    _, trainer = fit(config, tiny_data, num_epochs=20)
    assert float(trainer.callback_metrics[names.PHASE1_RESIDUAL]) < 1e-6
    assert float(trainer.callback_metrics[names.PHASE1_VAL_CONVERGED_RATIO]) == 1.0


def test_gradients_are_clipped_under_mixed_precision_too(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    config = dataclasses.replace(tiny_config, precision="bf16-mixed", gradient_clip=1e-8)
    clipped, _ = fit(config, tiny_data)
    free, _ = fit(dataclasses.replace(config, gradient_clip=0.0), tiny_data)
    L.seed_everything(config.random_seed, verbose=False)
    start = weights(FixedPointModule(config, tiny_data.vocab_size))
    # Adam's steps do not know a gradient's size, unless it is near its epsilon of 1e-8.
    assert (weights(clipped) - start).norm() < 0.5 * (weights(free) - start).norm()
