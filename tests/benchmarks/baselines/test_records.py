"""Records survive what happens to files; the table says what is in them and no more."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.baselines.records import Cell, Records, read_cells, table_lines
from config import InputError

DATA = {
    "corpus": "chitchat", "tokenizer": "train", "vocab_size": 300, "max_seq_length": 32,
    "num_val_samples": 4,
}  # fmt: skip


def cell(model: str, seed: int, ppl: float, **settings: object) -> Cell:
    return Cell(
        {**DATA, "model": model, "tokens": 6400, "parameters": 1e5, "trials": 2, "seed": seed}
        | settings,
        {
            "parameters": 100_100, "test_ppl": ppl, "bits_per_byte": ppl / 100, "seconds": 2.0,
            "tokens_per_second": 3200.0, "milliseconds_at_100": 0.5, "test_tokens": 960,
            "milliseconds_at_long_position": 0.75, "long_position": 1000, "machine": "an abacus",
            "window": 32 if model == "gpt" else None,
        },
    )  # fmt: skip


def test_what_was_added_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "records.jsonl"
    with Records(path) as records:
        records.add(cell("gpt", 0, 50.0))
        # There before the file is closed: a process that is killed now loses nothing.
        assert read_cells(path) == [cell("gpt", 0, 50.0)]
    with Records(path) as records:
        assert records.find(cell("gpt", 0, 1.0).settings) == cell("gpt", 0, 50.0)
        assert records.find(cell("gpt", 1, 1.0).settings) is None
        assert records.find(cell("gpt", 0, 1.0, trials=3).settings) is None


def test_half_a_line_is_cut_off_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with Records(path) as records:
        records.add(cell("gpt", 0, 50.0))
    with path.open("a") as file:
        file.write('{"settings": {"mod')
    assert read_cells(path) == [cell("gpt", 0, 50.0)]
    with Records(path) as records:
        records.add(cell("gpt", 1, 60.0))
    assert read_cells(path) == [cell("gpt", 0, 50.0), cell("gpt", 1, 60.0)]


@pytest.mark.parametrize("line", ["no JSON", "[]", '{"settings": {}}'])
def test_a_file_of_something_else_is_told_and_left_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(f"{line}\nand more")
    with pytest.raises(InputError, match="line 1 is no record"):
        Records(path)
    assert path.read_text() == f"{line}\nand more"


def test_a_second_process_is_told(tmp_path: Path) -> None:
    with (
        Records(tmp_path / "r.jsonl"),
        pytest.raises(InputError, match="in use by another process"),
    ):
        Records(tmp_path / "r.jsonl")


def test_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Records(tmp_path)


def rows(cells: list[Cell]) -> list[list[str]]:
    lines = table_lines(cells, ["kneser-ney", "gpt", "lstm"])
    return [re.findall(r"[^|]+", line[2:-2]) for line in lines if line.startswith("|")]


def test_the_table_has_means_and_spread_over_seeds() -> None:
    cells = [cell("lstm", 0, 40.0), cell("gpt", 0, 50.0), cell("gpt", 1, 60.0)]
    _, _, gpt, lstm = ([word.strip() for word in row] for row in rows(cells))
    assert gpt == [
        "gpt", "100,100", "6,400", "2", "2", "55.00 ± 7.07", "0.5500 ± 0.0707", "2.0", "3,200",
        "0.500", "0.750*",
    ]  # fmt: skip
    assert lstm[:7] == ["lstm", "100,100", "6,400", "2", "1", "40.00", "0.4000"]
    assert lstm[-1] == "0.750"
    assert "`*` gpt sees the last 32 tokens alone" in "\n".join(table_lines(cells, ["lstm", "gpt"]))


def test_what_differs_in_more_than_the_seed_is_not_averaged() -> None:
    cells = [
        cell("gpt", seed, 50.0 + trials, trials=trials) for trials in (2, 9) for seed in (0, 1)
    ]
    cells.append(cell("gpt", 0, 70.0, tokens=512))
    cells.append(cell("gpt", 0, 80.0, ours={"memory": "residual"}))
    perplexities = [row[5].strip() for row in rows(cells)[2:]]
    assert perplexities == ["70.00", "52.00 ± 0.00", "59.00 ± 0.00", "80.00"]


def test_other_data_are_another_table() -> None:
    lines = list(table_lines([cell("gpt", 0, 50.0), cell("gpt", 0, 60.0, corpus="b.txt")], ["gpt"]))
    headings = [line for line in lines if line.startswith("corpus")]
    assert [json.loads(re.split("[ ,]", line)[1]) for line in headings] == ["chitchat", "b.txt"]
    assert sum(line.startswith("| gpt") for line in lines) == 2
