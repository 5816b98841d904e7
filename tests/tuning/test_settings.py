"""What a study records of its objective."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from config import Config
from datamodules import token_rows
from datamodules.token_datamodule import TokenDataModule
from tuning import settings
from tuning.search_space import DEFAULT_SPACE, parse_search_space
from tuning.settings import code_version, difference, settings_of


def test_what_changes_the_objective_is_told(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    first = settings_of(tiny_config, tiny_data, DEFAULT_SPACE)
    assert difference(first, settings_of(tiny_config, tiny_data, DEFAULT_SPACE)) == ""
    assert difference(json.loads(json.dumps(first)), first) == ""
    changed = dataclasses.replace(
        tiny_config, dropout=0.1, num_val_samples=2, cache_dir="/tmp", num_workers=3
    )
    other = TokenDataModule(dataclasses.replace(changed, cache_dir=tiny_config.cache_dir))
    other.setup()
    narrower = parse_search_space("dist_reg_weight", ["dist_reg_weight=0.1:0.5"])
    told = difference(first, settings_of(changed, other, narrower)).split("; ")
    assert "dropout was 0.3 and is 0.1" in told
    assert "num_val_samples was 4 and is 2" in told
    assert "range of dist_reg_weight was '0.01:0.99:log' and is '0.1:0.5:log'" in told
    assert [one.split()[0] for one in told][-1] == "tokens"
    assert len(told) == 4


def test_the_same_text_at_another_place_is_the_same_setting(
    tiny_config: Config, tiny_data: TokenDataModule, tmp_path: Path
) -> None:
    first = settings_of(tiny_config, tiny_data, DEFAULT_SPACE)
    shutil.copy(tiny_config.corpus, tmp_path / "elsewhere.jsonl")
    (tmp_path / "tokenizer.json").write_text(tiny_data.tokenizer.to_str())
    moved = TokenDataModule(
        dataclasses.replace(
            tiny_config,
            corpus=str(tmp_path / "elsewhere.jsonl"),
            tokenizer=str(tmp_path / "tokenizer.json"),
            context_storage="disk",
        )
    )
    moved.setup()
    second = settings_of(moved.config, moved, DEFAULT_SPACE)
    assert difference(first, second) == ""
    recorded_before = first | {"corpus": tiny_config.corpus, "tokenizer": "train"}
    assert difference(recorded_before, second) == ""


def test_tokens_are_digested_as_one_array(
    tiny_config: Config, tiny_data: TokenDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_rows, "_TOKENS_AT_ONCE", 100)
    digest = hashlib.sha256()
    for rows in (tiny_data.train_rows, tiny_data.val_rows):
        digest.update(repr(tuple(rows.tokens.shape)).encode() + rows.tokens.numpy().tobytes())
    recorded = settings_of(tiny_config, tiny_data, DEFAULT_SPACE)
    assert recorded["tokens"] == digest.hexdigest()[:12]


def test_versions_are_recorded(tiny_config: Config, tiny_data: TokenDataModule) -> None:
    recorded = settings_of(tiny_config, tiny_data, DEFAULT_SPACE)
    for name in ("torch", "lightning", "optuna"):
        assert str(recorded[f"version of {name}"])[0].isdigit()
    assert {"tokens", "tokenizer_json", "code"} <= recorded.keys()


def test_the_code_is_what_val_ppl_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(settings.__file__).parents[1]
    for room in ("models", "datamodules", "lightning_modules", "callbacks", "tuning"):
        shutil.copytree(root / room, tmp_path / room)
    shutil.copy(root / "config.py", tmp_path)
    before = code_version()
    monkeypatch.setattr(settings, "_ROOT", tmp_path)
    assert code_version() == before
    (tmp_path / "tuning" / "report.py").write_text("")
    assert code_version() == before
    with (tmp_path / "models" / "token_head.py").open("a") as file:
        file.write("\n")
    assert code_version() != before
