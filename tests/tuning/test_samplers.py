"""Samplers that repeat their draws, pruners by name."""

import optuna
import pytest
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

from config import InputError
from tuning.samplers import SamplerName, grid_size, make_pruner, make_sampler
from tuning.search_space import DEFAULT_SPACE, parse_search_space

TWO = parse_search_space("dist_reg_weight,phase1_learning_rate")


def draws(name: SamplerName, seed: int, num_trials: int = 13) -> list[dict[str, float]]:
    study = optuna.create_study(sampler=make_sampler(name, seed, TWO, num_trials))
    study.optimize(lambda trial: sum(TWO.suggest(trial).values()), n_trials=num_trials)
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "random"])
def test_same_seed_same_draws_other_seed_others(name: SamplerName) -> None:
    assert draws(name, 0) == draws(name, 0)
    assert draws(name, 0)[0] != draws(name, 1)[0]


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "random"])
def test_workers_draw_differently(name: SamplerName) -> None:
    """Each has a sampler of its own with the same seed."""
    storage = optuna.storages.InMemoryStorage()
    studies = [
        optuna.create_study(
            storage=storage,
            study_name="shared",
            load_if_exists=True,
            sampler=make_sampler(name, 0, TWO, 30),
        )
        for _ in range(4)
    ]
    drawn = [tuple(TWO.suggest(study.ask()).values()) for _ in range(3) for study in studies]
    assert len(set(drawn)) == 12


def test_a_grid_is_walked_through_once() -> None:
    assert grid_size(TWO, 9) == 9
    drawn = draws("grid", 0, 9)
    assert len({tuple(params.values()) for params in drawn}) == 9


def test_cma_es_needs_two_parameters() -> None:
    with pytest.raises(InputError, match="two parameters or more"):
        make_sampler("cmaes", 0, DEFAULT_SPACE, 5)


def test_pruners() -> None:
    kinds = {
        "median": MedianPruner,
        "hyperband": HyperbandPruner,
        "successive-halving": SuccessiveHalvingPruner,
        "none": NopPruner,
    }
    for name, kind in kinds.items():
        assert isinstance(make_pruner(name, 5), kind)  # type: ignore[arg-type]
