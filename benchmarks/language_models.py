"""Our model beside the usual ones: same text, tokenizer, tokens, parameters and trials for tuning.

    python benchmarks/language_models.py --models kneser-ney --tokens 24576 64000 512000 3000000
    python benchmarks/language_models.py --tokens 64000 --parameters 1.5e6 --trials 6 --seeds 0 1 2
    python benchmarks/language_models.py --table

For each number of tokens, of parameters and each model: the width that has that many parameters;
an Optuna study (TPE) over learning rate, dropout and weight decay (for ours those of Phase 2, and
dist-reg-weight where there is a Phase 1), judged by validation perplexity; then a training under
each seed with the best values, judged on the test split's rows. Every training keeps its best epoch
by validation.

Finished trainings stand in --records, a line each, and the studies in a database beside it: the
same command goes on where it was left and repeats nothing. --table prints what is there.

Columns: weights in all, those of F included where it is not trained (for kneser-ney the n-grams that
it counts); training tokens, each seen once an epoch; perplexity and bits a byte of the predicted
tokens of the test rows, whose bytes are those of their text, mean and standard deviation over
seeds; wall time of a training, validations included, and training tokens it read a second (Phase
1's sweeps count for ours); wall time to generate a token for one row.
"""

import dataclasses
import hashlib
import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import optuna
import torch
from torch import Tensor

import command_line
from benchmarks.baselines.candidates import Candidate, Task, candidate, parse_given
from benchmarks.baselines.curves import draw_curves
from benchmarks.baselines.generation import Generator, milliseconds_a_token
from benchmarks.baselines.kneser_ney import KneserNey, KneserNeyGenerator
from benchmarks.baselines.ours import Overrides, parse_overrides
from benchmarks.baselines.records import Cell, Records, Settings, read_cells, table_lines
from benchmarks.baselines.sizing import count_parameters
from benchmarks.baselines.training import mean_loss
from benchmarks.baselines.tuning_study import tune
from benchmarks.solver import device_name, open_device
from config import Config, InputError, require
from datamodules.token_datamodule import TokenDataModule

_KNESER_NEY = "kneser-ney"
ModelName = Literal[
    "kneser-ney", "lstm", "gpt", "mingru",
    "ours-untrained", "ours-frozen", "ours-unfrozen", "ours-unfrozen-no-phase1",
]  # fmt: skip
MODELS: tuple[ModelName, ...] = get_args(ModelName)
_SHARED = (
    "corpus", "tokenizer", "vocab_size", "max_seq_length", "num_samples", "num_val_samples",
    "cache_dir", "accelerator", "random_seed", "phase2_epochs", "freeze_context", "label_smoothing",
    "copy_window",
)  # fmt: skip
"""Fields of `Config` that the options here set, or a model's name."""


@dataclass(frozen=True)
class Options:
    """What to compare."""

    models: tuple[ModelName, ...] = MODELS
    """Which models; `ours-…` leave Phase 1 out (untrained, no-phase1) or not, and train F with the
    token head (unfrozen) or not."""
    tokens: tuple[int, ...] = (64_000, 512_000, 3_000_000)
    """Training tokens; whole sequences of them, and what the corpus has where it has fewer."""
    parameters: tuple[float, ...] = (1.5e6,)
    """Numbers of parameters, met to 5 %."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds that the best setting is trained under; tuning has its own."""
    trials: int = 20
    """Trials of each model's study; with 0 every seed has the values of a study's first trial."""
    epochs: int = 8
    """Epochs at most; the learning rate reaches 0 at their end."""
    patience: int = 2
    """Epochs without a lower validation loss after which a training stops."""
    ours: tuple[str, ...] = ()
    """Fields of our own Config, FIELD=VALUE, such as `memory=residual`; one that is given is not
    tuned, and a size not scaled."""
    baselines: tuple[str, ...] = ()
    """Values of what is tuned of lstm, gpt and mingru, NAME=VALUE, such as `learning_rate=3e-3`; one
    that is given is not tuned."""
    compile: bool = False
    """Compile what a training step computes, of all models that are trained but the LSTM, whose
    recurrence a library has as one call."""
    records: Path = Path("runs/language_models.jsonl")
    """File of finished trainings; the studies are beside it, in a file that ends with .db."""
    table: bool = False
    """Print the table of what is in --records, and train nothing."""
    plot: Path | None = None
    """PNG to draw the learning curves of --records to, the first seed of each model's."""
    long_position: int = 100_000
    """Position in a text at which generation is timed, beside 100."""
    device: str = "cpu"
    """Where to train, as torch names it."""
    corpus: str = Config.corpus
    """As train.py has it."""
    tokenizer: str = Config.tokenizer
    """As train.py has it."""
    vocab_size: int = Config.vocab_size
    """As train.py has it."""
    max_seq_length: int = Config.max_seq_length
    """Tokens in a sequence, which is all that a model sees of a text."""
    num_val_samples: int = 64
    """Validation sequences."""
    batch_size: int = Config.batch_size
    """Sequences in an optimiser step."""
    label_smoothing: float = Config.label_smoothing
    """As train.py has it, for all models that are trained."""
    copy_window: int = Config.copy_window
    """As train.py has it, for all models that are trained."""
    cache_dir: str = Config.cache_dir
    """Folder of the tokenised corpora."""

    def check(self) -> None:
        """Raises `InputError` where a field is out of its range.

        Not while it is built, as the parser would then tell it in a box of many lines.
        """
        require(self.trials >= 0, "trials", self.trials, "0 or more")
        for name in ("epochs", "patience", "long_position"):
            value = getattr(self, name)
            require(value >= 1, name, value, "1 or more")
        for name in ("models", "tokens", "parameters", "seeds"):
            require(bool(getattr(self, name)), name, (), "one or more")
        for tokens in self.tokens:
            require(tokens >= self.max_seq_length, "tokens", tokens, "a sequence or more")
        for parameters in self.parameters:
            require(0 < parameters < math.inf, "parameters", parameters, "a positive number")
        path = self.records
        require(path.suffix != ".db", "records", str(path), "a name that does not end with .db")
        self.config(num_samples=1)

    def config(self, num_samples: int) -> Config:
        """Data and batches as all models have them.

        Raises:
            InputError: a field is out of its range.
        """
        return dataclasses.replace(
            Config(), corpus=self.corpus, tokenizer=self.tokenizer, vocab_size=self.vocab_size,
            max_seq_length=self.max_seq_length, num_samples=num_samples,
            num_val_samples=self.num_val_samples, batch_size=self.batch_size,
            cache_dir=self.cache_dir, label_smoothing=self.label_smoothing,
            copy_window=self.copy_window,
            accelerator="cpu" if self.device.startswith("cpu") else "gpu",
        )  # fmt: skip


def main() -> int:
    options = tyro.cli(Annotated[Options, tyro.conf.arg(name="")], description=__doc__)
    options.check()
    overrides = parse_overrides(options.ours, taken=_SHARED)
    if options.table:
        cells = read_cells(options.records)
    else:
        device = open_device(options.device)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        cells = _measure(options, Given(overrides, parse_given(options.baselines)), device)
    print("\n".join(table_lines(cells, MODELS)))
    if options.plot is not None:
        draw_curves(cells).savefig(options.plot, dpi=150)
    return 0


class Given(NamedTuple):
    """What is not tuned: fields of our own configuration, and values of the other models."""

    ours: Overrides
    baselines: Mapping[str, float]


def _measure(options: Options, given: Given, device: torch.device) -> list[Cell]:
    with Records(options.records) as records:
        try:
            for tokens in dict.fromkeys(options.tokens):
                Comparison(options, given, records, device, tokens).run()
        except KeyboardInterrupt:
            print("Interrupted; the same command goes on.", flush=True)
            raise
        return records.cells


class Comparison:
    """All models on one number of training tokens."""

    def __init__(
        self,
        options: Options,
        given: Given,
        records: Records,
        device: torch.device,
        tokens: int,
    ) -> None:
        self.options, self.given = options, given
        self.records, self.device = records, device
        self.config = options.config(num_samples=tokens // options.max_seq_length)
        self.data = TokenDataModule(self.config)
        self.data.setup()
        self.num_tokens = self.data.train_rows.tokens.numel()
        if len(self.data.test_rows) == 0:
            raise InputError(
                f"--corpus {options.corpus!r} has no test sequence of {options.max_seq_length} "
                "tokens; it must be larger, or --max-seq-length smaller."
            )
        num_test = self.data.test_rows.tokens.numel()
        print(f"{self.data.describe()}, test {num_test:,} tokens", flush=True)
        if self.num_tokens < tokens - tokens % options.max_seq_length:
            print(f"The corpus has fewer than {tokens:,} training tokens; all are used", flush=True)

    def run(self) -> None:
        """Every cell that is not in the records yet."""
        for model in dict.fromkeys(self.options.models):
            if model == _KNESER_NEY:
                self._kneser_ney()
                continue
            for target in dict.fromkeys(self.options.parameters):
                self._trained(model, target)

    def _kneser_ney(self) -> None:
        settings = self._data_settings(_KNESER_NEY)
        if self.records.find(settings) is not None:
            return
        start = time.monotonic()
        train_rows = self.data.train_rows.tokens.numpy()
        model = KneserNey(train_rows, vocab_size=self.data.vocab_size)
        seconds = time.monotonic() - start
        val_loss, test_loss = (
            -float(np.log(model.next_probabilities(rows.tokens.numpy())).mean())
            for rows in (self.data.val_rows, self.data.test_rows)
        )
        trained = {
            "parameters": model.num_ngrams, "window": model.order - 1, "val_loss": val_loss,
            "seconds": seconds, "tokens_per_second": self.num_tokens / seconds,
        }  # fmt: skip
        self._store(settings, test_loss, KneserNeyGenerator(model), trained)

    def _trained(self, model: str, target: float) -> None:
        common = {
            **self._data_settings(model), "parameters": target, "trials": self.options.trials,
            "epochs": self.options.epochs, "patience": self.options.patience,
            "batch_size": self.config.batch_size, "label_smoothing": self.config.label_smoothing,
            "copy_window": self.config.copy_window, "compile": self.options.compile,
        }  # fmt: skip
        if model.startswith("ours"):
            common["ours"] = self.given.ours
        elif self.given.baselines:
            common["baselines"] = self.given.baselines
        missing = [
            settings
            for seed in dict.fromkeys(self.options.seeds)
            if self.records.find(settings := {**common, "seed": seed}) is None
        ]
        if not missing:
            return
        print(f"{model}, {target:,.0f} parameters, {self.num_tokens:,} tokens", flush=True)
        task = Task(
            self.config, self.data, target, self.options.epochs, self.options.patience,
            self.device, self.given.ours, self.given.baselines, self.options.compile,
        )  # fmt: skip
        trained = candidate(model, task)
        values = self._tuned(trained, study_name(common)) if self.options.trials else trained.first
        for settings in missing:
            self._seed(trained, values, settings)

    def _tuned(self, trained: Candidate, name: str) -> Mapping[str, float]:
        return tune(
            trained,
            storage=f"sqlite:///{self.options.records.with_suffix('.db')}",
            name=name,
            num_trials=self.options.trials,
            seed=self.config.random_seed,
            report=lambda line: print(f"  {line}", flush=True),
        ).values

    def _seed(self, trained: Candidate, values: Mapping[str, float], settings: Settings) -> None:
        training = trained.train(values, settings["seed"])
        test_loss = mean_loss(training.model, self.data.test_rows.tokens.to(self.device))
        self._store(settings, test_loss, trained.generator(training.model), {
            "parameters": count_parameters(training.model),
            "window": self.config.max_seq_length if settings["model"] == "gpt" else None,
            "val_loss": training.val_loss, "seconds": training.seconds,
            "tokens_per_second": self.num_tokens * training.num_passes / training.seconds,
            "best_epoch": training.best_epoch, "num_epochs": training.num_epochs,
            "values": dict(values), "curve": training.curve,
        })  # fmt: skip

    def _store(
        self,
        settings: Settings,
        test_loss: float,
        generator: Generator[Any],
        trained: Mapping[str, Any],
    ) -> None:
        rows = self.data.test_rows.tokens
        text = rows.flatten().to(self.device)
        position = self.options.long_position
        result = {
            **trained,
            "test_loss": test_loss,
            "test_ppl": math.exp(test_loss),
            "bits_per_byte": test_loss / math.log(2) * rows[:, 1:].numel() / self._num_bytes(rows),
            "test_tokens": rows.numel(),
            "milliseconds_at_100": milliseconds_a_token(generator, text, 100),
            "milliseconds_at_long_position": milliseconds_a_token(generator, text, position),
            "long_position": position,
            "machine": f"torch {torch.__version__}, optuna {optuna.__version__}, "
            f"{device_name(self.device)}, {torch.get_num_threads()} threads",
        }
        self.records.add(Cell(settings, result))
        seed = f", seed {settings['seed']}" if "seed" in settings else ""
        print(
            f"  {settings['model']}{seed}: {result['parameters']:,} parameters, "
            f"test_ppl {result['test_ppl']:.2f}, {result['seconds']:.1f} s",
            flush=True,
        )

    def _num_bytes(self, rows_NT: Tensor) -> int:
        """UTF-8 bytes of the text of all tokens that are predicted; end-of-text has none."""
        texts = self.data.tokenizer.decode_batch(rows_NT[:, 1:].tolist(), skip_special_tokens=True)
        return sum(len(text.encode()) for text in texts)

    def _data_settings(self, model: str) -> dict[str, Any]:
        options = self.options
        return {
            "model": model, "tokens": self.num_tokens, "corpus": options.corpus,
            "tokenizer": options.tokenizer, "vocab_size": self.data.vocab_size,
            "max_seq_length": options.max_seq_length, "num_val_samples": len(self.data.val_rows),
        }  # fmt: skip


def study_name(settings: Settings) -> str:
    """Of all settings but the number of trials: a study that is asked for more goes on."""
    text = json.dumps({name: settings[name] for name in sorted(settings) if name != "trials"})
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{settings['model']}, {settings['tokens']} tokens, {digest}"


if __name__ == "__main__":
    command_line.run(main)
