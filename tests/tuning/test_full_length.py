"""Run directories: started once, continued exactly, loaded from a notebook in three lines."""

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from rich.console import Console
from torch.optim import Optimizer

from callbacks.whole_steps import WholeSteps
from config import Config, ContextDtype, ContextStorage, InputError
from datamodules.token_datamodule import TokenBatch, TokenDataModule
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.token_prediction_module import TokenPredictionModule
from tuning.display import StudyDisplay
from tuning.full_length import FullRun
from tuning.run_folder import start_run, stored_config, stored_options
from tuning.run_options import RunOptions
from tuning.storage import open_storage
from tuning.study import StudyPlan, open_study, run_study
from tuning.training import NO_LOGGER, fit_phase


def full_run(
    config: Config, data: TokenDataModule, folder: Path, options: RunOptions | None = None
) -> FullRun:
    return FullRun(config, data, folder, Console(file=io.StringIO()), options or RunOptions())


def written(run: FullRun) -> str:
    assert isinstance(run.console.file, io.StringIO)
    return run.console.file.getvalue()


def rows_of(folder: Path, phase: str) -> list[dict[str, str]]:
    with (folder / phase / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


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


@pytest.mark.parametrize(
    ("storage", "dtype", "freeze_context"),
    [("auto", "float32", True), ("disk", "bfloat16", True), ("auto", "float32", False)],
)
@pytest.mark.parametrize("module", [FixedPointModule, TokenPredictionModule])
def test_a_run_that_was_cut_off_equals_one_that_was_left_alone(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: type[FixedPointModule | TokenPredictionModule],
    storage: ContextStorage,
    dtype: ContextDtype,
    freeze_context: bool,
) -> None:
    """Stopped by an error in its third epoch; contexts, averages, optimiser and dropout go on."""
    config = dataclasses.replace(
        tiny_config, phase1_max_epochs=4, phase1_min_converged_ratio=1.0, phase2_epochs=4,
        context_storage=storage, context_dtype=dtype, freeze_context=freeze_context,
    )  # fmt: skip
    start_run(tmp_path / "whole", config)
    run = full_run(config, tiny_data, tmp_path / "whole")
    whole = run.train()

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
    assert_equal_weights(whole, continued)


@pytest.mark.parametrize(("batches_a_step", "batch_index"), [(1, 5), (3, 7)])
def test_a_run_that_was_cut_off_amid_epochs_has_the_curve_of_one_that_was_left_alone(
    tiny_config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batches_a_step: int,
    batch_index: int,
) -> None:
    """In both phases: in a batch of its own step, and in the last, of which its step has two."""
    config = dataclasses.replace(
        tiny_config, batch_size=1, phase1_min_converged_ratio=1.0, phase2_epochs=3
    )
    data = TokenDataModule(config)
    data.setup()
    left_alone = RunOptions(accumulate_grad_batches=batches_a_step)
    start_run(tmp_path / "whole", config, left_alone)
    whole = full_run(config, data, tmp_path / "whole", left_alone).train()

    options = dataclasses.replace(left_alone, checkpoint_minutes=1e-9)
    cut = tmp_path / "cut"
    start_run(cut, config, options)
    for module in (FixedPointModule, TokenPredictionModule):
        original = module.training_step

        def failing(
            self: L.LightningModule, batch: TokenBatch, index: int, step: Any = original
        ) -> torch.Tensor:
            if self.trainer.current_epoch == 1 and index == batch_index:
                raise MemoryError
            return step(self, batch, index)  # type: ignore[no-any-return]

        monkeypatch.setattr(module, "training_step", failing)
        with pytest.raises(MemoryError):
            full_run(config, data, cut, stored_options(cut)).train()
        monkeypatch.setattr(module, "training_step", original)
        torch.rand(7)
    run = full_run(config, data, cut, stored_options(cut))
    assert_equal_weights(whole, run.train())
    for phase in ("phase1", "phase2"):
        expected = (tmp_path / "whole" / phase / "metrics.csv").read_bytes()
        assert (cut / phase / "metrics.csv").read_bytes() == expected
    num_done = batch_index - batch_index % batches_a_step
    assert f"Phase 2: goes on in epoch 2/3 after batch {num_done}/8\n" in written(run)
    assert len(json.loads((cut / "versions.json").read_text())) == 3


def assert_equal_weights(one: L.LightningModule, other: L.LightningModule) -> None:
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


class Gradients(L.Callback):
    """Gradients of every step, as the optimiser gets them."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        weights = [w for group in optimizer.param_groups for w in group["params"]]
        self.seen.append(torch.cat([w.grad.flatten().clone() for w in weights]))


@pytest.mark.parametrize("phase", [1, 2])
@pytest.mark.parametrize("batches_a_step", [4, 5])
def test_gradients_of_several_batches_are_those_of_one_large_batch(
    tiny_config: Config, phase: int, batches_a_step: int
) -> None:
    """8 rows in 4 batches of 2; a step of 5 batches would be more than an epoch has."""
    seen = []
    for batch_size, accumulated in ((8, 1), (2, batches_a_step)):
        config = dataclasses.replace(
            tiny_config, batch_size=batch_size, dist_reg_weight=0.0, dropout=0.0, gradient_clip=0.0,
            phase1_learning_rate=1e-30, phase2_learning_rate=1e-30, contraction_weight=0.0,
        )  # fmt: skip
        data = TokenDataModule(config)
        data.setup()
        L.seed_everything(config.random_seed, verbose=False)
        module: FixedPointModule | TokenPredictionModule
        module = FixedPointModule(config, data.vocab_size)
        if phase == 2:
            module = TokenPredictionModule.from_phase1(module, data.vocab_size)
        gradients = Gradients()
        fit_phase(
            module,
            data,
            config=config,
            num_epochs=2,
            logger=NO_LOGGER,
            callbacks=[WholeSteps(), gradients],
            options=RunOptions(accumulate_grad_batches=accumulated),
        )
        # Of the second sweep: the residual of the first is the length of F's output, which is 1.
        _, second = gradients.seen
        seen.append(second)
    assert (seen[0] - seen[1]).norm() < 1e-4 * seen[0].norm()


def test_loss_and_learning_rate_of_every_step_are_written(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    config = dataclasses.replace(tiny_config, lr_schedule="constant", warmup_ratio=0.0)
    start_run(tmp_path, config)
    full_run(config, tiny_data, tmp_path).train()
    for phase, rate, num_epochs in (("phase1", 3e-4, 3), ("phase2", 8e-3, 2)):
        rows = [row for row in rows_of(tmp_path, phase) if row["step_loss"]]
        assert [int(row["step"]) for row in rows] == list(range(2 * num_epochs))
        assert {float(row["learning_rate"]) for row in rows} == {rate}
    # Both batches of the last epoch are of the same size.
    mean = sum(float(row["step_loss"]) for row in rows[-2:]) / 2
    logged = [float(row["train_loss"]) for row in rows_of(tmp_path, "phase2") if row["train_loss"]]
    assert logged[-1] == pytest.approx(mean)


def test_phase_2_ends_when_val_ppl_no_longer_falls(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    config = dataclasses.replace(tiny_config, phase2_epochs=9, phase2_learning_rate=1e-30)
    start_run(tmp_path, config)
    run = full_run(config, tiny_data, tmp_path, RunOptions(patience=2))
    run.train()
    assert len([row for row in rows_of(tmp_path, "phase2") if row["val_ppl"]]) == 3
    assert "Phase 2: no lower val_ppl for 2 epochs" in written(run)


def test_a_perplexity_that_is_no_number_ends_the_run_and_leaves_the_best_epoch_before(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Continued, it ends alike: what it goes on from is finite too."""
    config = dataclasses.replace(tiny_config, phase2_epochs=4)
    start_run(tmp_path, config)
    original = TokenPredictionModule.training_step

    def diverging(self: TokenPredictionModule, *arguments: Any) -> torch.Tensor:
        loss = original(self, *arguments)
        return loss * math.nan if self.trainer.current_epoch == 2 else loss

    monkeypatch.setattr(TokenPredictionModule, "training_step", diverging)
    best = tmp_path / "phase2" / "best.ckpt"
    for _ in range(2):
        with pytest.raises(FloatingPointError) as ended:
            full_run(config, tiny_data, tmp_path).train()
        expected = f"val_ppl was nan in epoch 3; the best epoch before it is {best}"
        assert str(ended.value) == expected
        for path in (best, best.with_name("last.ckpt")):
            state = torch.load(path, weights_only=True)["state_dict"]
            assert all(weight.isfinite().all() for weight in state.values())


def test_a_model_that_is_not_finite_is_not_taken_for_the_best(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    """As a run has left it that ended before perplexities were looked at."""
    start_run(tmp_path, tiny_config)
    full_run(tiny_config, tiny_data, tmp_path).train()
    best = tmp_path / "phase2" / "best.ckpt"
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["state_dict"]["head.output_bias"].fill_(math.nan)
    torch.save(checkpoint, best)
    with pytest.raises(FloatingPointError, match=r"best\.ckpt are not finite"):
        full_run(tiny_config, tiny_data, tmp_path).train()


def test_a_run_that_had_ended_early_trains_no_further(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    """Killed after its last checkpoint, before it wrote that it was done."""
    config = dataclasses.replace(tiny_config, phase1_max_epochs=9, phase1_min_converged_ratio=0.0)
    start_run(tmp_path, config)
    first = full_run(config, tiny_data, tmp_path).train()
    for path in ("phase1/done", "phase2/done", "phase2/last.ckpt", "phase2/best.ckpt"):
        (tmp_path / path).unlink()
    rows = rows_of(tmp_path, "phase1")
    assert_equal_weights(first, full_run(config, tiny_data, tmp_path).train())
    assert rows_of(tmp_path, "phase1") == rows


def test_both_phases_are_compiled_on_request(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    for kind in (FixedPointModule, TokenPredictionModule):
        monkeypatch.setattr(kind, "compile_steps", lambda self: compiled.append(type(self)))
    for name, options in (("plain", RunOptions()), ("fast", RunOptions(compile=True))):
        start_run(tmp_path / name, tiny_config)
        full_run(tiny_config, tiny_data, tmp_path / name, options).train()
    assert compiled == [FixedPointModule, TokenPredictionModule]


def test_batches_that_cannot_be_shared_are_refused(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    config = dataclasses.replace(tiny_config, batch_size=3)
    with pytest.raises(InputError, match=r"^--batch-size is 3; it must be a multiple of the 2 "):
        full_run(config, tiny_data, tmp_path, RunOptions(devices=2))


def test_phase_1_goes_on_with_as_many_processes(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_run(tmp_path, tiny_config)
    full_run(tiny_config, tiny_data, tmp_path).train()
    for path in ("phase1/done", "phase2/done", "phase2/last.ckpt"):
        (tmp_path / path).unlink()
    run = full_run(tiny_config, tiny_data, tmp_path, RunOptions(devices=2))
    with pytest.raises(InputError, match="begun by 1 processes and goes on with as many, not 2"):
        run.train()


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
