"""Corpora larger than memory: tokenising (MB/s, peak memory), and batches from the mapped files.

Text is that of `--corpus` over and over, each document under a number of its own, in files that are
made for it: these are tests of memory and time, and no corpus to learn from. Batches are those of the
corpus itself.

    python benchmarks/corpora.py
    python benchmarks/corpora.py --megabytes 300 --kinds jsonl
"""

import itertools
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.devices import CPU, peak_above, start_peak
from benchmarks.options import parse, run
from config import Config
from datamodules.corpora import open_corpus
from datamodules.row_sampler import RowSampler
from datamodules.token_cache import load_tokens
from datamodules.token_datamodule import TokenDataModule
from datamodules.token_loader import make_training_loader
from datamodules.token_rows import TokenBatch

Kind = Literal["txt", "jsonl", "parquet"]
_ROWS_A_GROUP = 1_000
_MB = 10**6


@dataclass(frozen=True)
class Options:
    """What to measure."""

    megabytes: tuple[float, ...] = (10.0, 40.0)
    """Sizes of the corpora that are tokenised."""
    kinds: tuple[Kind, ...] = ("txt", "jsonl", "parquet")
    """Files that they stand in."""
    num_epochs: int = 40
    """Epochs over the training rows, of each loader in turn."""
    rounds: int = 5
    """Repetitions of the loaders."""


class Tokenised(NamedTuple):
    """Seconds, those of processors, peak and starting resident memory in MB, training tokens."""

    seconds: float
    processor: float
    peak: float
    start: float
    num_tokens: int


def main() -> None:
    options, config = parse(Options, __doc__)
    documents = list(open_corpus(config.corpus, Path(config.cache_dir)).read())
    with tempfile.TemporaryDirectory() as folder:
        print("corpus       MB  seconds: wall  processor   MB/s  memory, MB: start   peak  tokens")
        for kind, megabytes in itertools.product(options.kinds, options.megabytes):
            path = Path(folder) / f"corpus.{kind}"
            num_bytes = write_corpus(path, documents, megabytes * _MB)
            made = in_new_process(path, config.vocab_size, Path(folder) / "cache")
            print(
                f"{kind:8} {num_bytes / _MB:6.4g} {made.seconds:14.1f} {made.processor:10.1f} "
                f"{num_bytes / _MB / made.seconds:6.2f} {made.start:18.0f} {made.peak:6.0f} "
                f"{made.num_tokens / 1e6:6.2f}M",
                flush=True,
            )
            path.unlink()
    print("\ntraining batches, µs of the processor each; the best of rounds")
    for name, microseconds in loading(options, config):
        print(f"{name:24} {microseconds:7.1f}")


def write_corpus(path: Path, documents: Sequence[str], num_bytes: float) -> int:
    """Writes documents over and over, about so many bytes; the bytes of its text."""
    written = 0

    def repeated() -> Iterator[str]:
        nonlocal written
        for number, document in enumerate(itertools.cycle(documents)):
            if written >= num_bytes:
                return
            text = f"{number}\n{document}"
            written += len(text.encode())
            yield text

    _WRITERS[path.suffix](path, repeated())
    return written


def _write_txt(path: Path, documents: Iterator[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{document}\n\n" for document in documents)


def _write_jsonl(path: Path, documents: Iterator[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": document}) + "\n" for document in documents)


def _write_parquet(path: Path, documents: Iterator[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, pa.schema({"text": pa.string()})) as writer:
        while group := list(itertools.islice(documents, _ROWS_A_GROUP)):
            writer.write_table(pa.table({"text": group}))


_WRITERS: dict[str, Callable[[Path, Iterator[str]], None]] = {
    ".txt": _write_txt,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}


def in_new_process(path: Path, vocab_size: int, cache_dir: Path) -> Tokenised:
    """Tokenises in a process that has not held anything else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(tokenise, (path, vocab_size, cache_dir))


def tokenise(path: Path, vocab_size: int, cache_dir: Path) -> Tokenised:
    """Tokenises in this process."""
    start, began, processor = start_peak(CPU), time.perf_counter(), time.process_time()
    splits = load_tokens(str(path), "train", vocab_size, cache_dir)
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    peak = start + peak_above(start, CPU)
    return Tokenised(seconds, processor, peak / _MB, start / _MB, len(splits.train))


class RowsInMemory(Dataset[TokenBatch]):
    """What the map is held against: all rows as one tensor, (N, T) int64."""

    def __init__(self, tokens_NT: Tensor) -> None:
        self.tokens = tokens_NT

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitems__(self, indices: Sequence[int]) -> TokenBatch:
        index = torch.as_tensor(indices)
        return TokenBatch(self.tokens[index], index)


def loading(options: Options, config: Config) -> Iterator[tuple[str, float]]:
    """Names and times of the loaders, which take turns."""
    torch.set_num_threads(1)
    data = TokenDataModule(config)
    data.setup()
    whole = TokenDataModule(replace(config, num_samples=None))
    whole.setup()
    in_memory = RowsInMemory(data.train_rows.tokens)
    sampler = RowSampler(len(in_memory), config.batch_size, seed=config.random_seed)
    loaders: dict[str, tuple[DataLoader[TokenBatch], int]] = {
        "in memory": (
            make_training_loader(in_memory, sampler, config.batch_size, 0),  # type: ignore[arg-type]  # rows of another kind
            options.num_epochs,
        ),
        "mapped": (data.train_dataloader(), options.num_epochs),
        "mapped, the whole corpus": (whole.train_dataloader(), 1),
    }
    best = dict.fromkeys(loaders, float("inf"))
    for _ in range(options.rounds):
        for name, (loader, num_epochs) in loaders.items():
            best[name] = min(best[name], _seconds_a_batch(loader, num_epochs) * 1e6)
    yield from best.items()


def _seconds_a_batch(loader: DataLoader[TokenBatch], num_epochs: int) -> float:
    began = time.process_time()
    num_batches = sum(1 for _ in range(num_epochs) for _ in loader)
    return (time.process_time() - began) / num_batches


if __name__ == "__main__":
    run(main)
