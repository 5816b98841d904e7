"""Curves of a run: what stands in its metrics.csv, where it stands there."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

import benchmarks.run_curves
from benchmarks.run_curves import Curve, draw, read_curve
from config import Config, InputError
from tuning.run_folder import start_run
from tuning.run_options import RunOptions

PHASE1 = """epoch,phase1/converged_ratio,phase1/effective_rank_ratio,phase1/residual,\
phase1/val_converged_ratio,step,step_loss
0,,,,,0,0.9
0,0.0,,1.5,,1,
0,,0.8,,0.1,1,
1,1.0,,0.5,,3,
1,,0.9,,0.9,3,
"""
PHASE2 = """epoch,learning_rate,step,step_loss,train_loss,val_loss,val_ppl
0,0.008,0,2.0,,,
0,0.008,1,1.0,,,
0,,1,,1.5,,
0,,1,,,2.0,7.5
1,0.004,2,0.5,,,
1,0.002,3,0.25,,,
1,,3,,,1.5,4.5
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    start_run(path, Config(batch_size=5, max_seq_length=100), RunOptions(accumulate_grad_batches=2))
    for phase, text in (("phase1", PHASE1), ("phase2", PHASE2)):
        (path / phase).mkdir()
        (path / phase / "metrics.csv").write_text(text, encoding="utf-8")
    return path


def test_a_column_is_read_by_steps_and_thinned_to_means(run_dir: Path) -> None:
    losses = read_curve(run_dir / "phase2/metrics.csv", "step_loss")
    assert losses == ([1, 2, 3, 4], [2.0, 1.0, 0.5, 0.25])
    assert losses.thinned(2) == ([2, 4], [1.5, 0.375])
    assert losses.thinned(3) == losses.thinned(2)
    assert losses.thinned(4) == losses.thinned(100) == losses
    assert Curve([1, 2, 3], [1.0, 2.0, 6.0]).thinned(2) == ([2, 3], [1.5, 6.0])


def test_both_phases_are_drawn_by_sweep_and_by_tokens_read(run_dir: Path) -> None:
    left, right = draw(run_dir, {"kneser-ney": 5.0}).axes
    ratios = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in left.lines}
    assert ratios == {
        "converged, training": [[1, 0], [2, 1]],
        "converged, unseen text": [[1, 0.1], [2, 0.9]],
        "effective rank / C, unseen text": [[1, 0.8], [2, 0.9]],
    }
    training, val_ppl, other = (np.asarray(line.get_xydata()).tolist() for line in right.lines)
    assert training[0] == pytest.approx([0.001, math.exp(2.0)])
    assert training[3] == pytest.approx([0.004, math.exp(0.25)])
    assert val_ppl == [pytest.approx([0.002, 7.5]), pytest.approx([0.004, 4.5])]
    assert [height for _, height in other] == [5, 5]
    assert all(tick == int(tick) for tick in left.get_xticks()), "there is no half of a sweep"
    assert [text.get_text() for text in right.texts] == ["7.5", "4.5", "kneser-ney 5"]


def test_half_a_row_of_a_killed_run_is_left_out(run_dir: Path) -> None:
    with (run_dir / "phase2/metrics.csv").open("a", encoding="utf-8") as file:
        file.write("2,0.00")
    assert read_curve(run_dir / "phase2/metrics.csv", "step_loss").steps == [1, 2, 3, 4]
    assert len(read_curve(run_dir / "phase2/metrics.csv", "learning_rate").steps) == 4


def test_a_picture_in_no_folder_is_refused(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--run-dir", str(run_dir), "--plot", str(tmp_path / "missing" / "plot.png")]
    monkeypatch.setattr(sys, "argv", ["run_curves.py", *arguments])
    with pytest.raises(InputError, match=r"--plot .* a folder that exists"):
        benchmarks.run_curves.main()


def test_a_folder_without_an_epoch_is_refused(tmp_path: Path, run_dir: Path) -> None:
    with pytest.raises(InputError, match="must be the folder of a run"):
        draw(tmp_path, {})
    rows = PHASE2.splitlines()[:3]
    (run_dir / "phase2/metrics.csv").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(InputError, match="an epoch of Phase 2"):
        draw(run_dir, {})


@pytest.mark.parametrize("pair", ["5", "=5", "name=", "name=five", "name=-1", "name=inf"])
def test_a_line_that_is_no_perplexity_is_refused(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: str
) -> None:
    plot = tmp_path / "plot.png"
    arguments = ["--run-dir", str(run_dir), "--plot", str(plot), "--lines"]
    monkeypatch.setattr(sys, "argv", ["run_curves.py", *arguments, "lstm=6", pair])
    with pytest.raises(InputError, match="NAME=PPL"):
        benchmarks.run_curves.main()
    assert not plot.exists()
    monkeypatch.setattr(sys, "argv", ["run_curves.py", *arguments, "lstm=6"])
    benchmarks.run_curves.main()
    assert plot.read_bytes().startswith(b"\x89PNG")
