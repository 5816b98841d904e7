"""The comparison end to end, in sizes that mean nothing: cells, studies that go on, one-line errors."""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from tokenizers import Tokenizer

import benchmarks.baselines.candidates as candidates
from benchmarks import language_models
from benchmarks.baselines.records import Cell, read_cells
from benchmarks.baselines.training import Training
from config import InputError
from datamodules.token_datamodule import TokenDataModule

CHAT = Path(__file__).parents[1] / "datamodules" / "data" / "ultrachat_sample.jsonl"
TOKENS = 256
Run = Callable[..., str]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tiny_data: TokenDataModule,
) -> Run:  # fmt: skip
    def call(*arguments: str) -> str:
        options = f"""language_models.py --records {tmp_path}/r.jsonl --corpus {CHAT}
            --vocab-size 300 --max-seq-length 32 --num-val-samples 4 --tokens {TOKENS}
            --parameters 7.5e4 --trials 1 --seeds 0 --epochs 1 --long-position 40
            --cache-dir {tiny_data.config.cache_dir}""".split()
        monkeypatch.setattr(sys, "argv", [*options, *arguments])
        assert language_models.main() == 0
        return capsys.readouterr().out

    return call


def cells(folder: Path) -> list[Cell]:
    return read_cells(folder / "r.jsonl")


def test_every_model_has_its_cell_and_nothing_is_repeated(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An embedding of F's own would be half of all, and only those that are frozen have one.
    ours = ("--ours", "phase1_max_epochs=1", "embed_dim=128", "head_embed_dim=16")
    output = run(*ours)
    made = cells(tmp_path)
    assert [cell.settings["model"] for cell in made] == list(language_models.MODELS)
    for cell in made:
        assert 1 < cell.result["test_ppl"] < 300
        assert cell.result["test_ppl"] == pytest.approx(math.exp(cell.result["test_loss"]))
        if cell.settings["model"] != "kneser-ney":
            assert abs(cell.result["parameters"] - 7.5e4) <= 0.05 * 7.5e4
    assert [cell.result["window"] for cell in made] == [4, None, 32, *[None] * 6]
    table = output[output.index("| model") :]
    monkeypatch.setattr(candidates, "train", None)  # whoever trains now fails
    monkeypatch.setattr(candidates, "train_ours", None)
    again = run(*ours)
    assert cells(tmp_path) == made
    assert again[again.index("| model") :] == table
    assert run("--table", "--plot", str(tmp_path / "curves.png")).endswith(table)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_value_that_is_given_is_not_tuned(run: Run, tmp_path: Path) -> None:
    run("--models", "lstm", "--baselines", "learning-rate=1e-3", "dropout=0.5")
    run("--models", "lstm", "--baselines", "learning_rate=1e-3")
    run("--models", "lstm")
    given, some, none = cells(tmp_path)
    assert given.settings["baselines"] == {"learning_rate": 1e-3, "dropout": 0.5}
    assert [sorted(cell.result["values"]) for cell in (given, some, none)] == [
        ["weight_decay"], ["dropout", "weight_decay"], ["dropout", "learning_rate", "weight_decay"]
    ]  # fmt: skip
    assert len({cell.result["test_ppl"] for cell in (given, some, none)}) == 3


def test_seeds_and_trials_that_are_missing_are_added(run: Run, tmp_path: Path) -> None:
    first = run("--models", "lstm")
    assert first.count("trial 1 of 1") == 1
    more = run("--models", "lstm", "--seeds", "0", "1")
    assert "trial" not in more.partition("corpus")[0]
    assert [cell.settings["seed"] for cell in cells(tmp_path)] == [0, 1]
    assert cells(tmp_path)[0].result["test_ppl"] != cells(tmp_path)[1].result["test_ppl"]
    longer = run("--models", "lstm", "--trials", "2")
    assert "trial 1 of 2" not in longer
    assert "trial 2 of 2" in longer
    assert [cell.settings["trials"] for cell in cells(tmp_path)] == [1, 1, 2]


def test_the_best_trial_by_validation_is_what_is_trained(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With losses that the dropout decides; the training that diverged is none of them."""
    train, dropouts = candidates.train, []

    def decided(model: candidates.LSTM, *rest: object) -> Training:
        dropouts.append(model.dropout)
        if len(dropouts) == 2:
            raise FloatingPointError("diverged")
        return train(model, *rest)._replace(val_loss=abs(model.dropout - 0.55))  # type: ignore[arg-type]

    monkeypatch.setattr(candidates, "train", decided)
    output = run("--models", "lstm", "--trials", "5")
    assert dropouts[0] == candidates.FIRST["lstm"]["dropout"], "first come the best known values"
    tried = [dropouts[0], *dropouts[2:5]]
    best = min(tried, key=lambda dropout: abs(dropout - 0.55))
    assert dropouts[5:] == [best]
    assert cells(tmp_path)[0].result["values"]["dropout"] == best
    assert "trial 2 of 5" in output
    assert output.count("diverged") == 1


def test_no_trials_is_training_with_the_first_values(run: Run, tmp_path: Path) -> None:
    output = run("--models", "lstm", "--trials", "0", "--seeds", "0", "1")
    assert "trial" not in output.partition("| model")[0].partition("corpus")[0]
    assert not (tmp_path / "r.db").exists(), "no study is made"
    made = cells(tmp_path)
    assert [cell.settings["trials"] for cell in made] == [0, 0]
    assert all(cell.result["values"] == candidates.FIRST["lstm"] for cell in made)


def test_an_interrupted_trial_comes_first_next_time(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Training:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(candidates, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("--models", "lstm")
    assert cells(tmp_path) == []
    output = run("--models", "lstm")
    values = ", ".join(f"{name} {value:.4g}" for name, value in candidates.FIRST["lstm"].items())
    assert f"trial 1 of 1: {values}" in output
    (name,) = optuna.get_all_study_names(f"sqlite:///{tmp_path}/r.db")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{tmp_path}/r.db")
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]


def test_bits_a_byte_are_of_the_predicted_text(
    run: Run, tmp_path: Path, tiny_data: TokenDataModule
) -> None:
    run("--models", "kneser-ney")
    (cell,) = cells(tmp_path)
    tokenizer: Tokenizer = tiny_data.tokenizer
    end = tokenizer.token_to_id("<|endoftext|>")
    predicted = tiny_data.test_rows.tokens[:, 1:].flatten().tolist()
    # A byte-level token has a character for each of its bytes.
    num_bytes = sum(len(tokenizer.id_to_token(token)) for token in predicted if token != end)
    bits = cell.result["test_loss"] / math.log(2) * len(predicted)
    assert cell.result["bits_per_byte"] == pytest.approx(bits / num_bytes, rel=0.002)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--trials -1", "--trials is -1; it must be 0 or more"),
        ("--tokens 10", "--tokens is 10; it must be a sequence or more"),
        ("--parameters 100 --models gpt", "met to 5 % by no width"),
        ("--ours num_samples=3", "the same for all models"),
        ("--baselines width=3", "NAME one of learning_rate, dropout, weight_decay"),
        ("--baselines dropout=1", "must be at least 0 and below 1"),
        ("--baselines learning_rate=fast", "must be a number"),
        ("--corpus nowhere.txt", "does not exist"),
        ("--device abacus", "--device is 'abacus'"),
        ("--records r.db", "--records is 'r.db'; it must be a name that does not end with .db"),
        ("--table", "cannot be read: No such file"),
    ],
)
def test_bad_input_is_told_in_one_line(run: Run, arguments: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as error:
        run(*arguments.split())
    assert len(str(error.value).splitlines()) == 1


def test_a_corpus_that_is_too_small_is_used_whole(run: Run, tmp_path: Path) -> None:
    assert "all are used" in run("--models", "kneser-ney", "--tokens", "10000000")
    (cell,) = cells(tmp_path)
    assert TOKENS < cell.settings["tokens"] < 10_000_000
