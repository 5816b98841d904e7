"""How a trial ends that cannot be trained."""

import io
from pathlib import Path

import optuna
import pytest
import torch
from rich.console import Console

from callbacks.verdict import OUT_OF_MEMORY, PRUNING_REASON
from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule
from tuning.display import StudyDisplay
from tuning.objective import Objective


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory: MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory.\nMore"), "out of memory: CUDA out of memory."),
        (RuntimeError("can't allocate memory: 9 bytes"), "can't allocate memory: 9 bytes"),
    ],
)
def test_a_trial_without_memory_is_pruned(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    message: str,
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(FixedPointModule, "training_step", full)
    display = StudyDisplay(Console(file=io.StringIO()))
    trial = optuna.create_study().ask()
    with pytest.raises(optuna.TrialPruned) as pruned:
        Objective(tiny_config, tiny_data, tmp_path, display)(trial)
    assert str(pruned.value).endswith(message)
    assert trial.user_attrs[PRUNING_REASON] == OUT_OF_MEMORY
    assert trial.study.get_trials()[trial.number].constraints == {"memory": 1.0}
