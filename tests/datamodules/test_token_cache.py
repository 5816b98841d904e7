"""Tokens and their cache: no validation text in the tokenizer, no stale or damaged tokens."""

import errno
import json
import random
import re
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from config import InputError
from datamodules import document_sort, token_cache
from datamodules.corpora import Corpus, open_corpus
from datamodules.splits import SPLITS, split_of
from datamodules.token_cache import load_tokens
from datamodules.token_files import TokenSplits
from datamodules.tokenizer import END_OF_TEXT, end_of_text_id, train_tokenizer
from tests.datamodules.splitting import split_documents

ROOT = Path(__file__).parents[2]
RARE = "zyxwvuzyxwvu"
VOCAB_SIZE = 320


def make_documents() -> list[str]:
    """Lines of made-up words; one that falls to validation repeats a word found nowhere else."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=4)) for _ in range(50)]
    documents = [" ".join(draw.choices(words, k=20)) for _ in range(400)]
    rare = (f"{number} " + f"{RARE} " * 200 for number in range(1000))
    documents.append(next(text.strip() for text in rare if split_of(text.strip()) == "validation"))
    return documents


DOCUMENTS = make_documents()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(DOCUMENTS), encoding="utf-8")
    return path


def load(corpus: Path, tokenizer: str = "train", vocab_size: int = VOCAB_SIZE) -> TokenSplits:
    return load_tokens(str(corpus), tokenizer, vocab_size, corpus.parent / "cache")


def cached_files(corpus: Path) -> list[Path]:
    """Folders of tokens, and whatever else but locks was left in the cache."""
    found = (corpus.parent / "cache").glob("*/*")
    return sorted(path for path in found if path.suffix != ".lock")


def assert_same(one: TokenSplits, other: TokenSplits) -> None:
    for name in SPLITS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype == np.uint16
    assert one.num_bytes.tolist() == other.num_bytes.tolist()
    assert one.tokenizer.to_str() == other.tokenizer.to_str()


def test_tokenizer_is_trained_on_the_training_split_alone(corpus: Path) -> None:
    tokenizer = load(corpus).tokenizer
    training = split_documents(DOCUMENTS).train
    assert tokenizer.to_str() == train_tokenizer(training, VOCAB_SIZE).to_str()
    assert len(tokenizer.encode(RARE).ids) == len(RARE)
    leaky = train_tokenizer(DOCUMENTS, VOCAB_SIZE)
    assert len(leaky.encode(RARE).ids) < len(RARE)


def test_splits_are_their_documents_each_closed_by_end_of_text(corpus: Path) -> None:
    splits = load(corpus)
    end = end_of_text_id(splits.tokenizer)
    for name, documents in split_documents(DOCUMENTS)._asdict().items():
        tokens = getattr(splits, name)
        assert tokens[-1] == end
        assert int((tokens == end).sum()) == len(documents)
        pieces = np.split(tokens, np.flatnonzero(tokens == end) + 1)[:-1]
        decoded = [splits.tokenizer.decode(piece[:-1].tolist()) for piece in pieces]
        assert decoded == documents


def test_bytes_are_counted_in_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    documents = [f"süß {number}" for number in range(200)]
    path.write_text("\n".join(documents), encoding="utf-8")
    splits = split_documents(documents)
    expected = [sum(len(text.encode()) for text in part) for part in splits]
    assert load(path).num_bytes.tolist() == expected


def test_white_space_around_documents_and_empty_ones_vanish(corpus: Path) -> None:
    clean = load(corpus)
    padded = corpus.with_name("padded.txt")
    padded.write_text("\n".join(f"  {text}\t\n " for text in DOCUMENTS), encoding="utf-8")
    assert_same(load(padded), clean)


def test_second_load_does_not_read_the_corpus(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def watched(name: str, cache_dir: Path) -> Corpus:
        found = open_corpus(name, cache_dir)
        return found._replace(read=lambda: reads.append(name) or found.read())

    monkeypatch.setattr(token_cache, "open_corpus", watched)
    first = load(corpus)
    assert len(reads) == 1
    assert_same(load(corpus), first)
    assert len(reads) == 1
    assert len(cached_files(corpus)) == 1


def test_cache_is_found_wherever_the_corpus_lies(corpus: Path) -> None:
    first = load(corpus)
    moved = corpus.rename(corpus.with_name("moved.txt"))
    assert_same(load(moved), first)
    assert len(cached_files(corpus)) == 1


def test_changed_corpus_has_another_key(corpus: Path) -> None:
    before = load(corpus)
    corpus.write_text("\n".join([*DOCUMENTS, "a new document"]), encoding="utf-8")
    after = load(corpus)
    assert len(cached_files(corpus)) == 2
    assert sum(after.num_bytes) == sum(before.num_bytes) + len("a new document")


def test_tokenizer_is_part_of_the_key(corpus: Path) -> None:
    small, large = load(corpus, vocab_size=260), load(corpus, vocab_size=300)
    assert small.tokenizer.get_vocab_size() == 260
    assert large.tokenizer.get_vocab_size() == 300
    assert len(large.train) < len(small.train)
    path = corpus.with_name("tokenizer.json")
    small.tokenizer.save(str(path))
    assert_same(load(corpus, tokenizer=str(path), vocab_size=300), small)
    assert len(cached_files(corpus)) == 3


def test_given_tokenizer_is_used_as_it_is(corpus: Path) -> None:
    given = train_tokenizer(["a text of its own, " * 5], 270)
    path = corpus.with_name("tokenizer.json")
    given.save(str(path))
    splits = load(corpus, tokenizer=str(path))
    assert splits.tokenizer.to_str() == given.to_str()
    first = split_documents(DOCUMENTS).train[0]
    expected = given.encode(first, add_special_tokens=False).ids
    assert splits.train[: len(expected)].tolist() == expected


def test_given_tokenizer_without_end_of_text_is_refused(corpus: Path) -> None:
    path = corpus.with_name("tokenizer.json")
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="--tokenizer"):
        load(corpus, tokenizer=str(path))


Damage = Callable[[bytes], bytes]


def truncate(share: float) -> Damage:
    return lambda content: content[: int(share * len(content))]


def flip(marker: bytes, offset: int, mask: int) -> Damage:
    """Changes bits of one byte, `offset` after where the marker stands first."""

    def damage(content: bytes) -> bytes:
        position = content.index(marker) + offset
        return content[:position] + bytes([content[position] ^ mask]) + content[position + 1 :]

    return damage


def wipe_middle(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(64) + content[middle + 64 :]


def count_one_less(content: bytes) -> bytes:
    found = re.search(rb"(?<='shape': \()\d+", content)
    assert found
    return content.replace(found[0], b"%d" % (int(found[0]) - 1), 1)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param("train.npy", truncate(0.0), id="empty"),
        pytest.param("train.npy", truncate(0.5), id="half"),
        pytest.param("test.npy", truncate(0.999), id="last bytes missing"),
        pytest.param("train.npy", lambda content: b"no array", id="another file"),
        pytest.param("train.npy", wipe_middle, id="zeros in the middle"),
        pytest.param("validation.npy", flip(b"NUMPY", 1000, 0xFF), id="token"),
        pytest.param("train.npy", flip(b"{'descr'", 0, 0x40), id="header, bracket"),
        pytest.param("train.npy", count_one_less, id="header, number of tokens"),
        pytest.param("tokenizer.json", truncate(0.9), id="half of the tokenizer"),
        pytest.param("record.json", truncate(0.9), id="half of the record"),
        pytest.param("record.json", flip(b"num_bytes", 14, 0x01), id="record, number of bytes"),
        pytest.param("record.json", lambda content: b"[]", id="another record"),
    ],
)
def test_damaged_cache_is_made_anew(name: str, damage: Damage, corpus: Path) -> None:
    good = load(corpus)
    (folder,) = cached_files(corpus)
    file = folder / name
    content = file.read_bytes()
    file.unlink()  # the good one is mapped, and stays what it was
    file.write_bytes(damage(content))
    assert file.read_bytes() != content
    assert_same(load(corpus), good)
    assert file.read_bytes() == content
    assert cached_files(corpus) == [folder]


@pytest.mark.parametrize("name", ["record.json", "train.npy", "tokenizer.json"])
def test_incomplete_cache_is_made_anew(name: str, corpus: Path) -> None:
    good = load(corpus)
    (folder,) = cached_files(corpus)
    (folder / name).unlink()
    assert_same(load(corpus), good)


@pytest.mark.parametrize("content", ["", "\n \n\n\t\n"])
def test_empty_corpus_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"^--corpus .* holds no text\.$"):
        load(path)
    assert cached_files(path) == []


def test_corpus_without_a_validation_document_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(split_documents(DOCUMENTS).train[:5]), encoding="utf-8")
    with pytest.raises(InputError, match=r"^--corpus .* 5 documents, .* 5 .* 0 "):
        load(path)


def test_memory_does_not_grow_with_the_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_sort, "_BUCKET_BYTES", 2**16)
    monkeypatch.setattr(document_sort, "_BUFFER_BYTES", 2**10)
    monkeypatch.setattr(token_cache, "_ENCODED_AT_ONCE", 2**14)
    monkeypatch.setattr(token_cache, "_TRAINED_ON_BYTES", 2**16)
    draw = random.Random(0)
    path = tmp_path / "corpus.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for _ in range(1_000):
            text = " ".join(f"{draw.getrandbits(32):x}" for _ in range(220))
            file.write(json.dumps({"text": text}) + "\n")
    num_bytes = path.stat().st_size
    assert num_bytes > 1_900_000
    tracemalloc.start()
    splits = load(path, vocab_size=257)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(splits.num_bytes) > 0.95 * num_bytes
    assert peak < 0.7 * num_bytes


def test_tokenizer_is_trained_on_the_first_documents_of_a_large_corpus(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = split_documents(DOCUMENTS).train
    num_bytes = sum(len(document) for document in training[:40])
    monkeypatch.setattr(token_cache, "_TRAINED_ON_BYTES", num_bytes)
    splits = load(corpus)
    expected = train_tokenizer(training[:40], VOCAB_SIZE)
    assert splits.tokenizer.to_str() == expected.to_str()
    assert splits.tokenizer.to_str() != train_tokenizer(training, VOCAB_SIZE).to_str()
    end = end_of_text_id(splits.tokenizer)
    assert int((splits.train == end).sum()) == len(training)


def test_a_first_document_beyond_what_a_tokenizer_is_trained_on_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no line end to cut it at."""
    monkeypatch.setattr(token_cache, "_TRAINED_ON_BYTES", 100)
    monkeypatch.setattr(token_cache, "_ENCODED_AT_ONCE", 50)
    long = [" ".join(DOCUMENTS[number : number + 9]) for number in range(0, len(DOCUMENTS), 9)]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in long), encoding="utf-8")
    first = split_documents(long).train[:1]
    assert len(first[0]) > 100
    assert load(path).tokenizer.to_str() == train_tokenizer(first, VOCAB_SIZE).to_str()


@pytest.mark.parametrize("tokenizer", ["train", "given"])
def test_what_is_encoded_at_once_changes_nothing(
    tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(0, len(DOCUMENTS), 8):
        text = "\n".join(DOCUMENTS[number : number + 8]) + "\n\n  indented\n"
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    if tokenizer == "given":
        tokenizer = str(tmp_path / "tokenizer.json")
        train_tokenizer(DOCUMENTS[:50], 280).save(tokenizer)
    whole = load(folder, tokenizer)
    (tmp_path / "cache").rename(tmp_path / "old cache")
    monkeypatch.setattr(token_cache, "_ENCODED_AT_ONCE", 100)
    assert_same(load(folder, tokenizer), whole)


def test_every_kind_of_file_gives_the_same_tokens(corpus: Path) -> None:
    expected = load(corpus)
    rows = [{"text": document} for document in DOCUMENTS]
    jsonl = corpus.with_name("corpus.jsonl")
    jsonl.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    parquet = corpus.with_name("corpus.parquet")
    pq.write_table(pa.Table.from_pylist(rows), parquet, row_group_size=100)
    folder = corpus.with_name("corpus")
    folder.mkdir()
    for number, document in enumerate(DOCUMENTS):
        (folder / f"{number}.txt").write_text(document, encoding="utf-8")
    for path in (jsonl, parquet, folder):
        assert_same(load(path), expected)


@pytest.mark.parametrize("tokenizer", ["train", "given"])
def test_end_of_text_typed_in_a_document_is_text(tokenizer: str, tmp_path: Path) -> None:
    documents = [f"{number} a{END_OF_TEXT}b" for number in range(100)]
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(documents), encoding="utf-8")
    if tokenizer == "given":
        tokenizer = str(tmp_path / "tokenizer.json")
        train_tokenizer(documents, 280).save(tokenizer)
    first = load(path, tokenizer)
    for splits in (first, load(path, tokenizer)):
        end = end_of_text_id(splits.tokenizer)
        assert int((splits.train == end).sum()) == len(split_documents(documents).train)
        assert end not in splits.tokenizer.encode(END_OF_TEXT).ids


def test_large_vocabularies_take_four_bytes_a_token(corpus: Path) -> None:
    words = sorted({word for document in DOCUMENTS for word in document.split()})
    entries = [END_OF_TEXT, "[UNK]", *(f"filler {number}" for number in range(2**16)), *words]
    given = Tokenizer(models.WordLevel({w: i for i, w in enumerate(entries)}, unk_token="[UNK]"))
    given.pre_tokenizer = pre_tokenizers.Whitespace()
    path = corpus.with_name("tokenizer.json")
    given.save(str(path))
    train = load(corpus, tokenizer=str(path)).train
    assert train.dtype == np.uint32
    first = split_documents(DOCUMENTS).train[0].split()
    assert train[: len(first)].tolist() == [entries.index(word) for word in first]


def test_half_of_a_surrogate_pair_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "good"}\n{"text": "half \\ud83c"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"^--corpus .* surrogate .*half "):
        load(path)
    assert cached_files(path) == []


def read_by(corpus: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[], None]) -> None:
    """Calls something after the first documents of a corpus were read."""

    def watched(name: str, cache_dir: Path) -> Corpus:
        found = open_corpus(name, cache_dir)

        def documents() -> Iterator[str]:
            for number, document in enumerate(found.read()):
                if number == 100:
                    read()
                yield document

        return found._replace(read=documents)

    monkeypatch.setattr(token_cache, "open_corpus", watched)


@pytest.mark.parametrize("stage", ["reading", "training", "tokenising"])
def test_an_interruption_leaves_nothing(
    stage: str, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if stage == "reading":
            read_by(corpus, patch, lambda: interrupt())
        elif stage == "training":
            patch.setattr(token_cache, "_TRAINED_ON_BYTES", 1_000)
            patch.setattr(token_cache, "_training_text", interrupt)
        else:
            patch.setattr(token_cache, "_ENCODED_AT_ONCE", 1_000)
            patch.setattr(token_cache.ByteProgress, "advance", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load(corpus)
        assert cached_files(corpus) == []
    assert len(load(corpus).train) > 0


def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(corpus: Path) -> None:
    killed = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from datamodules import token_cache\n"
        "token_cache._ENCODED_AT_ONCE = 1_000\n"
        "kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "token_cache.TokenWriter.finish = kill\n"
        f"token_cache.load_tokens({str(corpus)!r}, 'train', {VOCAB_SIZE}, Path(sys.argv[1]))\n"
    )
    cache = str(corpus.parent / "cache")
    ended = subprocess.run([sys.executable, "-c", killed, cache], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = cached_files(corpus)
    assert left.suffix == ".part"
    load(corpus)
    (made,) = cached_files(corpus)
    assert made.suffix == ".tokens"


def test_of_two_at_once_one_makes_the_tokens_and_the_other_waits(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = threading.Event()
    reads = []

    class Console:
        def __init__(self, stderr: bool) -> None:
            assert stderr

        def print(self, line: str) -> None:
            assert "Waiting" in line
            waits.set()

    def read() -> None:
        reads.append(waits.wait(timeout=60))

    read_by(corpus, monkeypatch, read)
    monkeypatch.setattr(token_cache, "Console", Console)
    with ThreadPoolExecutor(2) as pool:
        one, other = (pool.submit(load, corpus) for _ in range(2))
        assert_same(one.result(), other.result())
    assert reads == [True]


def test_a_full_disk_is_told(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(token_cache, "deal_out", fill)
    with pytest.raises(InputError, match=r"^--cache-dir .* No space left on device; .* room"):
        load(corpus)
    assert cached_files(corpus) == []


def test_a_cache_that_is_a_file_is_told(corpus: Path) -> None:
    (corpus.parent / "cache").write_text("a file")
    with pytest.raises(InputError, match=r"^--cache-dir .* cannot be written"):
        load(corpus)
