"""Every trial can be looked at in TensorBoard, pruned ones too."""

import dataclasses
import io
import math
from pathlib import Path

from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules import metric_names as names
from tuning.display import StudyDisplay
from tuning.storage import open_storage
from tuning.study import StudyPlan, open_study, run_study


def logged(config: Config, data: TokenDataModule, folder: Path) -> EventAccumulator:
    plan = StudyPlan("seen", 1, folder)
    study = open_study(open_storage(None), plan, config, data)
    run_study(study, config, data, plan, StudyDisplay(Console(file=io.StringIO())))
    events = EventAccumulator(str(folder / "seen" / "trial_0000"))
    events.Reload()
    return events


def hyper_parameters(events: EventAccumulator) -> dict[str, object]:
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    data = plugin_data_pb2.HParamsPluginData.FromString(content)
    started = data.session_start_info.hparams
    return {
        name: value.string_value if value.HasField("string_value") else value.number_value
        for name, value in started.items()
    }


def test_a_complete_trial_has_curves_of_both_phases_and_its_row(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    events = logged(tiny_config, tiny_data, tmp_path)
    tags = set(events.Tags()["scalars"])
    phase1 = {value for name, value in vars(names).items() if name.startswith("PHASE1_")}
    assert phase1 | {names.TRAIN_LOSS, names.VAL_LOSS, names.VAL_PPL} <= tags
    assert "hp_metric" not in tags
    assert len(events.Scalars(names.PHASE1_RESIDUAL)) == tiny_config.phase1_max_epochs
    assert len(events.Scalars(names.VAL_PPL)) == tiny_config.phase2_epochs
    row = hyper_parameters(events)
    assert row["outcome"] == "complete"
    assert 0 < float(str(row["dist_reg_weight"])) < 1
    best = min(event.value for event in events.Scalars(names.VAL_PPL))
    assert events.Scalars("outcome/val_ppl")[0].value == best


def test_a_trial_pruned_after_phase_1_has_its_rank_and_its_reason(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    config = dataclasses.replace(tiny_config, min_effective_rank=0.999)
    events = logged(config, tiny_data, tmp_path)
    assert names.PHASE1_EFFECTIVE_RANK in events.Tags()["scalars"]
    assert 1 <= events.Scalars("outcome/effective_rank")[0].value <= config.context_dim
    assert math.isnan(events.Scalars("outcome/val_ppl")[0].value)
    content = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    columns = plugin_data_pb2.HParamsPluginData.FromString(content).experiment.metric_infos
    assert "outcome/val_ppl" in {column.name.tag for column in columns}
    assert hyper_parameters(events)["outcome"] == "pruned: effective rank"
