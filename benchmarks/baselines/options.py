"""What the comparison of language models is asked for, and what is the same for all of them."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from benchmarks.baselines.ours import Overrides
from config import Config, Phase2Optimizer, require

KNESER_NEY = "kneser-ney"
ModelName = Literal[
    "kneser-ney", "lstm", "gpt", "mingru",
    "ours-untrained", "ours-read", "ours-frozen", "ours-unfrozen", "ours-unfrozen-no-phase1",
]  # fmt: skip
MODELS: tuple[ModelName, ...] = get_args(ModelName)
SHARED = (
    "corpus", "tokenizer", "vocab_size", "max_seq_length", "num_samples", "num_val_samples",
    "cache_dir", "accelerator", "random_seed", "phase2_epochs", "freeze_context", "label_smoothing",
    "copy_window", "phase2_optimizer",
)  # fmt: skip
"""Fields of `Config` that the options here set, or a model's name."""


@dataclass(frozen=True)
class Options:
    """What to compare."""

    models: tuple[ModelName, ...] = MODELS
    """Which models; `ours-…` leave Phase 1 out (untrained, no-phase1; read, which has its embedding from
    the training text) or not, and train F with the token head (unfrozen) or not."""
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
    optimizer: Phase2Optimizer = Config.phase2_optimizer
    """As train.py has --phase2-optimizer, for all models that are trained."""
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
            copy_window=self.copy_window, phase2_optimizer=self.optimizer,
            accelerator="cpu" if self.device.startswith("cpu") else "gpu",
        )  # fmt: skip


class Given(NamedTuple):
    """What is not tuned: fields of our own configuration, and values of the other models."""

    ours: Overrides
    baselines: Mapping[str, float]
