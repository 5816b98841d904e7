"""The benchmark of corpora in sizes that mean nothing: every line is there, and is right."""

import sys

import pytest

import benchmarks.corpora
from config import Config


def test_every_kind_and_every_loader_has_a_line(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        "--megabytes 0.03 0.06 --kinds txt jsonl parquet --num-epochs 1 --rounds 2 --num-samples 9 "
        f"--vocab-size 300 --corpus {tiny_config.corpus} --cache-dir {tiny_config.cache_dir} "
        "--max-seq-length 32 --num-val-samples 4"
    )
    monkeypatch.setattr(sys, "argv", ["corpora.py", *options.split()])
    # In the test's own process: a new one takes three seconds to import what this one has.
    monkeypatch.setattr(benchmarks.corpora, "in_new_process", benchmarks.corpora.tokenise)
    benchmarks.corpora.main()
    corpora, _, loaders = capsys.readouterr().out.partition("\n\n")
    lines = [line.split() for line in corpora.splitlines()[1:]]
    assert [line[0] for line in lines] == ["txt"] * 2 + ["jsonl"] * 2 + ["parquet"] * 2
    for (_, megabytes, *_, start, peak, tokens), asked in zip(lines, [0.03, 0.06] * 3, strict=True):
        assert asked <= float(megabytes) < asked + 0.01
        assert float(peak) >= float(start) > 0
        assert 0.5 < float(tokens.rstrip("M")) / asked < 0.9
    names = [line[:24].strip() for line in loaders.splitlines()[1:]]
    assert names == ["in memory", "mapped", "mapped, the whole corpus"]
    assert all(float(line[24:]) > 0 for line in loaders.splitlines()[1:])
