"""The tables of contexts and of what weights mean, in sizes that mean nothing; what they count."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import contexts, invariance
from benchmarks.context_plot import read
from benchmarks.solving import exact_contexts, sweeps_to_tolerance
from config import Config
from datamodules.token_datamodule import TokenDataModule
from lightning_modules.settings import context_network
from models.sweeps import residuals, sweep

CHAT = Path(__file__).parents[1] / "datamodules" / "data" / "ultrachat_sample.jsonl"
SIZES = """--vocab-size 300 --num-samples 8 --num-val-samples 4 --max-seq-length 32 --context-dim 16
    --embed-dim 16 --head-embed-dim 8 --head-hidden-dim 8 --phase1-max-epochs 2 --phase2-epochs 1
    --accelerator cpu --losses log_det --seeds 0 1""".split()
Run = Callable[..., list[list[str]]]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_data: TokenDataModule,
) -> Run:
    cache = ["--cache-dir", tiny_data.config.cache_dir, "--corpus", str(CHAT)]

    def call(main: Callable[[], int], *arguments: str) -> list[list[str]]:
        monkeypatch.setattr(sys, "argv", ["script", *SIZES, *cache, *arguments])
        assert main() == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()[1:]]

    return call


def test_the_table_of_contexts_its_records_and_its_plot(run: Run, tmp_path: Path) -> None:
    records, plot = tmp_path / "runs.jsonl", tmp_path / "runs.png"
    rows = run(
        contexts.main, "--memories", "gated", "residual", "--weights", "0.1", "0.9",
        "--records", str(records), "--plot", str(plot),
    )  # fmt: skip
    settings = [(memory, weight) for memory in ("gated", "residual") for weight in ("0.1", "0.9")]
    assert [(row[0], row[3]) for row in rows] == settings
    table = read(records)
    assert [(setting.memory, str(setting.weight)) for setting in table] == settings
    for runs in table.values():
        assert len(runs) == 2, "a run a seed"
        assert all(0 < one.rank_val < 1 and one.sweeps >= 1 for one in runs)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_table_of_momenta_and_batches(run: Run) -> None:
    rows = run(
        invariance.main, "--weights", "0.5", "--momenta", "0", "0.9", "--batches", "2", "4",
        "--num-steps", "8",
    )  # fmt: skip
    kinds = [(momentum, str(32 * batch)) for momentum in ("0.0", "0.9") for batch in (2, 4)]
    assert [tuple(row[2:4]) for row in rows] == kinds
    ranks = {row[4] for row in rows}
    assert len(ranks) == 4, "momentum and batch reach Phase 1"
    assert all(1 < float(row[6]) < 300 for row in rows)


@pytest.mark.parametrize("layers", [1, 3])
def test_exact_contexts_are_a_fixed_point_that_sweeps_come_to(
    tiny_config: Config, tiny_data: TokenDataModule, layers: int
) -> None:
    torch.manual_seed(0)
    config = Config(context_dim=32, embed_dim=8, num_layers=layers)
    network = context_network(config, tiny_data.vocab_size)
    embeddings = network.embed(tiny_data.val_rows.tokens).detach()
    solved = exact_contexts(network, embeddings)
    assert residuals(solved, sweep(network, solved, embeddings)).max() < 1e-10
    assert 2 < sweeps_to_tolerance(network, embeddings) <= tiny_config.max_seq_length + 1
    # The first position is exact after a sweep, which the second finds.
    assert sweeps_to_tolerance(network, embeddings[:, :1]) == 2
