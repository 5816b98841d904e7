"""What the README tells a notebook to run does run, line by line, on a real run."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import generate
from config import Config
from datamodules.token_datamodule import TokenDataModule

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def run_example(marker: str, run: str, **names: Any) -> dict[str, Any]:
    """Runs the README's block of Python that has the marker; returns the names that it leaves."""
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if marker in block]
    lines = [line for line in block.splitlines() if line]
    assert len(lines) == 3
    exec("\n".join(lines).replace("runs/…", run), names)
    return names


@pytest.mark.parametrize(
    ("marker", "result", "last_dimension"),
    [
        ("FixedPointModule.load", "contexts", "context"),
        ("PredictionModule.load", "logits", "vocab"),
    ],
)
def test_a_phase_is_loaded_in_three_lines(
    run: str,
    tiny_config: Config,
    tiny_data: TokenDataModule,
    marker: str,
    result: str,
    last_dimension: str,
) -> None:
    tokens = tiny_data.val_rows.tokens
    found = run_example(marker, run, tokens=tokens)[result]
    sizes = {"context": tiny_config.context_dim, "vocab": tiny_data.vocab_size}
    assert found.shape == (*tokens.shape, sizes[last_dimension])
    assert found.isfinite().all()
    assert not torch.equal(found[0], found[1])


def test_text_needs_the_checkpoint_alone(run: str, tiny_data: TokenDataModule) -> None:
    names = run_example("import load_language_model", run, torch=torch)
    assert names["tokens"].tolist() == [tiny_data.tokenizer.encode("A: hi").ids]
    with torch.no_grad():
        assert names["model"](names["tokens"]).shape[-1] == tiny_data.vocab_size


def test_text_is_written_as_on_the_command_line(
    run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = run_example("import load_language_model", run, torch=torch)
    run_example("write_text(", run, **names)
    written = capsys.readouterr().out
    arguments = ["--prompt", "A: hi", "--seed", "0", "--max-new-tokens", "100"]
    monkeypatch.setattr(sys, "argv", ["generate.py", "--checkpoint", run, *arguments])
    assert generate.main() == 0
    assert "A: hi" + written == capsys.readouterr().out


def test_contexts_of_a_text_are_found(run: str) -> None:
    names = run_example("import load_language_model", run, torch=torch)
    with torch.no_grad():
        names = run_example("solve(", run, **names)
    result, tokens = names["result"], names["tokens"]
    assert result.converged
    assert result.contexts.shape == (*tokens.shape, names["network"].context_dim)
