"""Each pruning callback in a real `Trainer.fit`."""

import dataclasses
import math

import lightning as L
import optuna
import pytest
import torch

from callbacks.convergence_stopping import ConvergenceStopping
from callbacks.effective_rank_pruning import EffectiveRankPruning
from callbacks.identity_mapping_pruning import IdentityMappingPruning
from callbacks.non_finite_pruning import NonFinitePruning
from callbacks.verdict import PRUNING_REASON, PRUNING_VALUE, record_limit
from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import metric_names as names
from lightning_modules.fixed_point_module import FixedPointModule
from tuning.training import NO_LOGGER, fit_phase


@pytest.fixture
def trial() -> optuna.Trial:
    return optuna.create_study().ask()


def fit(
    module: FixedPointModule, config: Config, data: TokenDataModule, *callbacks: L.Callback
) -> L.Trainer:
    return fit_phase(
        module, data, config=config, num_epochs=3, logger=NO_LOGGER, callbacks=callbacks
    )


@pytest.fixture
def module(tiny_config: Config, tiny_data: TokenDataModule) -> FixedPointModule:
    return FixedPointModule(tiny_config, tiny_data.vocab_size)


@pytest.fixture
def residual_module(tiny_config: Config, tiny_data: TokenDataModule) -> FixedPointModule:
    config = dataclasses.replace(tiny_config, memory="residual")
    return FixedPointModule(config, tiny_data.vocab_size)


def frozen(trial: optuna.Trial) -> optuna.trial.FrozenTrial:
    return trial.study.get_trials()[trial.number]


def still(module: FixedPointModule) -> FixedPointModule:
    """Phase 1 that trains without moving a weight."""
    for parameter in module.network.layers.parameters():
        parameter.register_hook(torch.zeros_like)
    return module


def test_identity_mapping_is_pruned(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    residual_module: FixedPointModule,
    trial: optuna.Trial,
) -> None:
    """A network whose update is a hundred thousandth hands its context back."""
    for layer in residual_module.network.layers:
        layer.update_scale = 1e-5
    callback = IdentityMappingPruning(trial, threshold=0.95, min_token_sensitivity=0.0)
    with pytest.raises(optuna.TrialPruned, match="identity mapping"):
        fit(still(residual_module), tiny_config, tiny_data, callback)
    assert trial.user_attrs[PRUNING_REASON] == "identity mapping"
    assert trial.user_attrs[PRUNING_VALUE] > 0.99
    assert frozen(trial).constraints["context_cosine"] == pytest.approx(
        trial.user_attrs[PRUNING_VALUE] - 0.95
    )


def test_token_blindness_is_pruned(
    tiny_config: Config, tiny_data: TokenDataModule, module: FixedPointModule, trial: optuna.Trial
) -> None:
    with torch.no_grad():
        for layer in module.network.layers:
            layer.token_weight.zero_()
    callback = IdentityMappingPruning(trial, threshold=1.0, min_token_sensitivity=0.01)
    with pytest.raises(optuna.TrialPruned, match="token blindness"):
        fit(still(module), tiny_config, tiny_data, callback)
    assert trial.user_attrs[PRUNING_REASON] == "token blindness"
    assert frozen(trial).constraints["token_sensitivity"] == pytest.approx(0.01)


def test_a_gated_network_that_hands_its_context_back_is_pruned(
    tiny_config: Config, tiny_data: TokenDataModule, module: FixedPointModule, trial: optuna.Trial
) -> None:
    """It rotates what it hands back, which no cosine shows: it is found by its blindness."""
    with torch.no_grad():
        module.network.get_parameter("log_scale").fill_(-30)
    callback = IdentityMappingPruning(trial, threshold=0.95, min_token_sensitivity=0.01)
    with pytest.raises(optuna.TrialPruned, match="token blindness"):
        fit(still(module), tiny_config, tiny_data, callback)


def test_low_rank_is_pruned(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    residual_module: FixedPointModule,
    trial: optuna.Trial,
) -> None:
    """Updates along a single direction: contexts of rank 1."""
    with torch.no_grad():
        for layer in residual_module.network.layers:
            layer.context_weight.zero_()
            layer.token_weight[1:].zero_()
    with pytest.raises(optuna.TrialPruned, match="effective rank"):
        fit(
            still(residual_module), tiny_config, tiny_data,
            EffectiveRankPruning(trial, min_effective_rank=0.5),
        )  # fmt: skip
    assert trial.user_attrs[PRUNING_REASON] == "effective rank"
    assert trial.user_attrs["effective_rank"] < 2
    violation = frozen(trial).constraints["effective_rank_ratio"]
    assert violation == pytest.approx(0.5 - trial.user_attrs[PRUNING_VALUE])


def test_a_good_trial_passes_and_has_its_figures(
    tiny_config: Config, tiny_data: TokenDataModule, module: FixedPointModule, trial: optuna.Trial
) -> None:
    trainer = fit(
        module, tiny_config, tiny_data,
        IdentityMappingPruning(trial, threshold=1.0, min_token_sensitivity=0.0),
        EffectiveRankPruning(trial, min_effective_rank=0.05),
    )  # fmt: skip
    assert PRUNING_REASON not in trial.user_attrs
    assert trial.user_attrs["effective_rank"] == pytest.approx(
        float(trainer.callback_metrics[names.PHASE1_EFFECTIVE_RANK])
    )
    assert len(frozen(trial).constraints) == 3
    assert all(violation <= 0 for violation in frozen(trial).constraints.values())


def test_non_finite_loss_is_pruned(
    tiny_config: Config, tiny_data: TokenDataModule, module: FixedPointModule, trial: optuna.Trial
) -> None:
    with torch.no_grad():
        next(module.network.layers.parameters()).fill_(math.inf)
    with pytest.raises(optuna.TrialPruned, match="non-finite loss"):
        fit(
            module, tiny_config, tiny_data,
            NonFinitePruning(trial, monitor=names.PHASE1_TRAIN_LOSS),
        )  # fmt: skip
    assert trial.user_attrs[PRUNING_REASON] == "non-finite loss"
    assert trial.user_attrs[PRUNING_VALUE] == "nan"
    assert all(violation > 0 for violation in frozen(trial).constraints.values())


def test_a_figure_that_is_no_number_does_not_pass_a_limit(trial: optuna.Trial) -> None:
    with pytest.raises(optuna.TrialPruned, match="not a number"):
        record_limit(trial, "effective_rank_ratio", value=math.nan, violation=math.nan)
    assert trial.user_attrs[PRUNING_REASON] == "non-finite loss"


@pytest.mark.parametrize(("min_ratio", "num_epochs"), [(0.0, 2), (1.1, 3)])
def test_convergence_stops_after_the_second_sweep_at_the_earliest(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    module: FixedPointModule,
    min_ratio: float,
    num_epochs: int,
) -> None:
    trainer = fit(module, tiny_config, tiny_data, ConvergenceStopping(min_ratio))
    assert trainer.current_epoch == num_epochs
