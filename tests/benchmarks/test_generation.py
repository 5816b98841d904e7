"""The benchmark of generation in sizes that mean nothing: every line is there, and is right."""

import sys
from itertools import islice

import pytest

import benchmarks.generation
from benchmarks.generation import gpt
from config import Config, InputError


def test_every_model_has_a_line_for_every_position(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--positions 5 40 --tokens 3 --vocab-size 300"
    monkeypatch.setattr(sys, "argv", ["generation.py", *options.split()])
    benchmarks.generation.main()
    lines = capsys.readouterr().out.splitlines()[2:]
    names = [line[:10].strip() for line in lines]
    assert names == [n for n in ("ours", "ours, full", "LSTM", "GPT") for _ in range(2)]
    rows = [line[10:].split() for line in lines]
    weights = dict(zip(names, [int(row[0].replace(",", "")) for row in rows], strict=True))
    # Blocks come on top of what the three have alike.
    assert weights["ours"] < weights.pop("ours, full")
    assert max(weights.values()) < 1.2 * min(weights.values())
    states = [float(row[2].replace(",", "")) for row in rows]
    assert states[0] == states[1]
    vector = Config().head_embed_dim * 4 / 1024
    keys_and_values = 2 * vector
    assert states[3] - states[2] == pytest.approx(35 * keys_and_values, rel=1e-3)
    # Two memories, and what the convolutions of three blocks have read last: 2, 1 and 2 of them.
    assert states[2] - states[0] == pytest.approx(5 * keys_and_values + 7 * vector, rel=1e-2)
    assert states[4] == states[5]
    assert states[7] == pytest.approx(8 * states[6])
    assert all(float(row[3]) > 0 for row in rows)
    assert [row[4] for row in rows[::2]] == ["1.00"] * 4


def test_a_cache_has_room_for_every_token_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(benchmarks.generation, "_num_weights", lambda: 12 * 64**2)
    text = gpt(300, num_layers=1).start(50, 1001)
    assert len(list(islice(text, 1001))) == 1001


@pytest.mark.parametrize("options", ["--positions 0", "--tokens 0", "--vocab-size 0"])
def test_what_is_out_of_range_is_told(monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["generation.py", *options.split()])
    with pytest.raises(InputError, match=f"{options.split()[0]} is .* it must be "):
        benchmarks.generation.main()
