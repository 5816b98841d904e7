"""Run directories: started once, continued exactly, loaded from a notebook in three lines."""

import dataclasses
import io
from pathlib import Path

import lightning as L
import pytest
import torch
from rich.console import Console

from config import Config, ContextDtype, ContextStorage, InputError
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.token_prediction_module import TokenPredictionModule
from tuning.display import StudyDisplay
from tuning.full_length import FullRun, start_run, stored_config
from tuning.storage import open_storage
from tuning.study import StudyPlan, open_study, run_study


def full_run(config: Config, data: TokenDataModule, folder: Path) -> FullRun:
    return FullRun(config, data, folder, Console(file=io.StringIO()))


def test_a_run_is_tested_and_loaded_again(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    start_run(tmp_path, tiny_config)
    run = full_run(tiny_config, tiny_data, tmp_path)
    module = run.train()
    perplexity = run.test(module)
    assert perplexity is not None
    assert 1 < perplexity < 10 * tiny_data.vocab_size

    best = tmp_path / "phase2" / "best.ckpt"
    loaded = TokenPredictionModule.load_from_checkpoint(best, weights_only=True)
    assert loaded.config == tiny_config
    tokens = tiny_data.val_rows.tokens
    with torch.no_grad():
        assert torch.equal(loaded.eval()(tokens), module.eval()(tokens))
    phase1 = FixedPointModule.load_from_checkpoint(
        tmp_path / "phase1" / "last.ckpt", weights_only=True
    )
    for name, weight in phase1.network.state_dict().items():
        assert torch.equal(weight, module.network.state_dict()[name])


@pytest.mark.parametrize(("storage", "dtype"), [("auto", "float32"), ("disk", "bfloat16")])
@pytest.mark.parametrize("module", [FixedPointModule, TokenPredictionModule])
def test_a_run_that_was_cut_off_equals_one_that_was_left_alone(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: type[FixedPointModule | TokenPredictionModule],
    storage: ContextStorage,
    dtype: ContextDtype,
) -> None:
    """Stopped by an error in its third epoch; contexts, averages, optimiser and dropout go on."""
    config = dataclasses.replace(
        tiny_config, phase1_max_epochs=4, phase1_min_converged_ratio=1.0, phase2_epochs=4,
        context_storage=storage, context_dtype=dtype,
    )  # fmt: skip
    start_run(tmp_path / "whole", config)
    whole = full_run(config, tiny_data, tmp_path / "whole").train()

    start_run(tmp_path / "cut", config)
    original = module.training_step

    def failing(self: L.LightningModule, *arguments: object) -> torch.Tensor:
        if self.trainer.current_epoch == 2:
            raise MemoryError
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "training_step", failing)
    with pytest.raises(MemoryError):
        full_run(config, tiny_data, tmp_path / "cut").train()
    monkeypatch.setattr(module, "training_step", original)
    torch.rand(7)
    assert stored_config(tmp_path / "cut") == config
    continued = full_run(config, tiny_data, tmp_path / "cut").train()
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, continued.state_dict()[name]), name


def test_training_meets_the_perplexity_of_the_trial_again(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    plan = StudyPlan("tiny", 1, tmp_path / "runs")
    study = open_study(open_storage(None), plan, tiny_config, tiny_data)
    run_study(study, tiny_config, tiny_data, plan, StudyDisplay(Console(file=io.StringIO())))
    config = dataclasses.replace(tiny_config, **study.best_params)
    start_run(tmp_path / "run", config)
    full_run(config, tiny_data, tmp_path / "run").train()
    best = torch.load(tmp_path / "run" / "phase2" / "best.ckpt", weights_only=True)
    scores = [
        state["best_model_score"].item()
        for name, state in best["callbacks"].items()
        if name.startswith("ModelCheckpoint")
    ]
    assert scores == [study.best_value]


def test_a_finished_run_is_not_trained_again(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_run(tmp_path, tiny_config)
    first = full_run(tiny_config, tiny_data, tmp_path).train()

    def forbidden(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(FixedPointModule, "training_step", forbidden)
    monkeypatch.setattr(TokenPredictionModule, "training_step", forbidden)
    again = full_run(tiny_config, tiny_data, tmp_path).train()
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )


def test_a_folder_that_is_not_empty_is_not_written_into(
    tiny_config: Config, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="is not empty"):
        start_run(tmp_path, tiny_config)
    with pytest.raises(InputError, match=r"has no config\.json"):
        stored_config(tmp_path)
