"""Corpora: every kind that a user may have, and a message in one line for all that is wrong."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.exceptions import DatasetNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st

from config import InputError
from datamodules.corpora import open_corpus

SAMPLE = Path(__file__).parent / "data" / "ultrachat_sample.jsonl"


@pytest.fixture(autouse=True)
def no_cache_at_home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("huggingface")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder))


CACHE = Path("no such folder")
"""Small corpora keep nothing in the cache."""


def read(path: Path | str) -> list[str]:
    return list(open_corpus(str(path), CACHE).read())


def fingerprint(path: Path | str) -> str:
    return open_corpus(str(path), CACHE).fingerprint


def refusal(name: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        read(name)
    message = str(caught.value)
    assert "--corpus" in message
    assert str(name) in message
    assert "\n" not in message
    return message


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def test_lone_file_is_split_at_blank_lines(tmp_path: Path) -> None:
    path = text(tmp_path / "a.txt", "\none\ntwo\n\n \t\nthrée\n\n\nfour\n")
    assert read(path) == ["one\ntwo", "thrée", "four"]


def test_lone_file_without_blank_lines_is_split_at_lines(tmp_path: Path) -> None:
    assert read(text(tmp_path / "a.txt", "one\ntwo\nthree\n")) == ["one", "two", "three"]


def paragraphs(content: str) -> list[str]:
    """Documents of a lone file, as they are meant."""
    found = re.split(r"\n\s*\n", content.strip())
    documents = found if len(found) > 1 else content.splitlines()
    return [document.strip() for document in documents if document.strip()]


@settings(max_examples=200, deadline=None)
@given(content=st.text(alphabet="ab \t\n\r\v\x1c\xa0\u2028", max_size=30))
def test_lone_file_is_split_as_it_is_meant_however_it_is_read(content: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.txt"
        path.write_bytes(content.encode())
        documents = [document.strip() for document in read(path)]
        assert [d for d in documents if d] == paragraphs(path.read_text(encoding="utf-8"))


def test_folder_has_a_document_a_file(tmp_path: Path) -> None:
    text(tmp_path / "b.txt", "one\n\ntwo")
    text(tmp_path / "a" / "z.txt", "deep")
    text(tmp_path / "notes.md", "not read")
    assert read(tmp_path) == ["deep", "one\n\ntwo"]


def test_folder_may_hold_tables(tmp_path: Path) -> None:
    jsonl(tmp_path / "b.jsonl", {"text": "two"}, {"text": "three"})
    pq.write_table(pa.table({"text": ["four"]}), tmp_path / "c.parquet")
    text(tmp_path / "a.txt", "one")
    assert read(tmp_path) == ["one", "two", "three", "four"]


def test_documents_are_read_one_after_the_other(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"text": "one"}, {"text": "two"}, {"body": 3}, 4)
    reader = open_corpus(str(path), CACHE).read()
    assert [next(reader) for _ in range(3)] == ["one", "two", ""]
    with pytest.raises(InputError, match=r"line 4 holds '4'"):
        next(reader)


def test_jsonl_with_text(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "a.jsonl", {"text": "one\n\ntwo", "n": 1}, {"text": None}, {"text": "x"}
    )
    assert read(path) == ["one\n\ntwo", "", "x"]


def test_json_with_text(tmp_path: Path) -> None:
    path = text(tmp_path / "a.json", json.dumps([{"text": "one"}, {"text": "two"}]))
    assert read(path) == ["one", "two"]


def test_jsonl_with_messages() -> None:
    documents = read(SAMPLE)
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    assert len(set(documents)) == len(rows) >= 40
    for document, row in zip(documents, rows, strict=True):
        lines = [f"{'AB'[i % 2]}: {m['content']}" for i, m in enumerate(row["messages"])]
        assert document.split("\n") == lines
        assert document.startswith(f"A: {row['prompt']}\nB: ")


def test_speakers_are_lettered_as_they_come(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi\nthere"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "bye"},
    ]
    path = jsonl(tmp_path / "a.jsonl", {"messages": messages}, {"messages": []})
    assert read(path) == ["A: be kind\nB: hi there\nC: \nB: bye", ""]


def test_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one", "zwei ü"], "n": [1, 2]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ["one", "zwei ü"]


def test_parquet_with_messages(tmp_path: Path) -> None:
    messages = [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]]
    pq.write_table(pa.table({"messages": messages}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ["A: hi\nB: ho"]


@pytest.mark.parametrize("name", ["with space.jsonl", "a*b.jsonl", "a[1].jsonl", "ü#?.jsonl"])
def test_file_names_are_taken_as_they_are(name: str, tmp_path: Path) -> None:
    assert read(jsonl(tmp_path / name, {"text": "one"})) == ["one"]


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    path = text(tmp_path / "a.txt", "one\ntwo")
    before = fingerprint(path)
    copy = shutil.copy(path, tmp_path / "b.txt")
    assert fingerprint(copy) == before
    assert fingerprint(text(path, "one\ntwo!")) != before


def test_fingerprint_of_a_folder_follows_every_file(tmp_path: Path) -> None:
    text(tmp_path / "a.txt", "one")
    seen = {fingerprint(tmp_path)}
    text(tmp_path / "b.txt", "two")
    seen.add(fingerprint(tmp_path))
    text(tmp_path / "b.txt", "three")
    seen.add(fingerprint(tmp_path))
    assert len(seen) == 3


@pytest.mark.parametrize("other", ["b.jsonl", "folder/a.txt"])
def test_same_bytes_read_differently_have_another_fingerprint(other: str, tmp_path: Path) -> None:
    content = '{"text": "one"}\n{"text": "two"}\n'
    path = text(tmp_path / "a.txt", content)
    copy = text(tmp_path / other, content)
    copy = copy if copy.suffix == ".jsonl" else copy.parent
    assert read(path) != read(copy)
    assert fingerprint(path) != fingerprint(copy)


@pytest.mark.parametrize("name", ["no.txt", "no.jsonl", "no.parquet", "no/such/folder", "a b"])
def test_missing_file_is_refused(name: str, tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / name)


def test_missing_relative_file_is_not_sought_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: pytest.fail("asked the Hub"))
    assert "does not exist" in refusal("nowhere.txt")


@pytest.mark.parametrize("name", ["a.csv", "a", "a.txt.gz"])
def test_unknown_kind_is_refused(name: str, tmp_path: Path) -> None:
    assert "kind" in refusal(text(tmp_path / name, "text"))


def test_folder_without_text_is_refused(tmp_path: Path) -> None:
    text(tmp_path / "a.md", "text")
    assert "without a .txt, .jsonl or .parquet file" in refusal(tmp_path)


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("über".encode("latin-1"))
    assert "UTF-8" in refusal(tmp_path / "a.txt")


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    message = refusal(jsonl(tmp_path / "a.jsonl", {"body": "one", "title": "two"}))
    assert "body, title" in message
    pq.write_table(pa.table({"body": ["one"]}), tmp_path / "a.parquet")
    assert "body" in refusal(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "content", ['{"text": "a"}\n{"text": \n', "no json\n", "1\n2\n", '["a"]\n["b"]\n', "{]\n"]
)
def test_malformed_jsonl_is_refused(content: str, tmp_path: Path) -> None:
    assert "jsonl" in refusal(text(tmp_path / "a.jsonl", content))


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_jsonl_is_refused(content: str, tmp_path: Path) -> None:
    assert "a.jsonl" in refusal(text(tmp_path / "a.jsonl", content))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_damaged_parquet_is_refused(share: float, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one", "two"]}), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "a.parquet" in refusal(path)


@pytest.mark.parametrize(
    "messages",
    [
        "hello",
        ["hello"],
        [{"from": "human", "value": "hello"}],
        {"role": "user", "content": "hello"},
        [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        [{"role": ["user"], "content": "hello"}],
        [None],
        5,
    ],
)
def test_messages_of_another_schema_are_refused(messages: Any, tmp_path: Path) -> None:
    assert "messages" in refusal(jsonl(tmp_path / "a.jsonl", {"messages": messages}))


@pytest.mark.parametrize("value", [7, ["one"], {"en": "one"}])
def test_text_that_is_no_text_is_refused(value: Any, tmp_path: Path) -> None:
    assert "text" in refusal(jsonl(tmp_path / "a.jsonl", {"text": value}))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach the Hub\nat all"),
        ConnectionError(),
        TimeoutError("timed out"),
        DatasetNotFoundError("Dataset 'someone/corpus' doesn't exist on the Hub"),
        ValueError("Config name is missing.\nPlease pick one among: ['a', 'b']"),
    ],
    ids=["unreachable", "no message", "timeout", "not found", "several configurations"],
)
def test_what_the_hub_does_not_give_is_refused(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    message = refusal("someone/corpus")
    assert str(error).partition("\n")[0] in message


HubAnswer = Callable[[str], datasets.DatasetDict]


def hub_with(**splits: list[str]) -> HubAnswer:
    tables = {name: datasets.Dataset.from_dict({"text": rows}) for name, rows in splits.items()}
    return lambda name: datasets.DatasetDict(tables)


@pytest.mark.parametrize("split", ["train", "train_sft"])
def test_training_split_of_a_hub_dataset_is_read(
    split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hub_with(**{"test": ["no"], split: ["one", "two"]})
    monkeypatch.setattr(datasets, "load_dataset", hub)
    assert read("someone/corpus") == ["one", "two"]


def test_hub_dataset_without_training_split_gives_its_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(datasets, "load_dataset", hub_with(everything=["one"], more=["two"]))
    assert read("corpus") == ["one"]


def test_fingerprint_of_a_hub_dataset_follows_its_content(monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprints = set()
    for rows in (["one"], ["two"], ["one"]):
        monkeypatch.setattr(datasets, "load_dataset", hub_with(train=rows))
        fingerprints.add(fingerprint("corpus"))
    assert len(fingerprints) == 2
