"""The configuration: one frozen, typed, self-checking record, and its presets.

Every field is an option of `optimize.py` and `train.py` under its own name with dashes
(`context_dim` is `--context-dim`). The text below a field is the help that they print.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

Precision = Literal["32-true", "bf16-mixed", "64-true"]
Memory = Literal["residual", "gated"]
DiversityLoss = Literal["covariance", "variance_covariance", "log_det", "dispersion"]
Accelerator = Literal["auto", "cpu", "gpu"]
Phase2Gradient = Literal["memory", "sweeps"]
ContextDtype = Literal["float32", "bfloat16"]
ContextStorage = Literal["auto", "device", "memory", "disk"]
Phase2Optimizer = Literal["adamw", "muon"]
LrSchedule = Literal["cosine", "linear", "constant", "inverse_sqrt", "warmup_stable_decay"]
PresetName = Literal["default", "full", "published", "smoke"]


class InputError(ValueError):
    """Something that the user gave is wrong: told in one line, ends with exit code 2."""


def require(holds: bool, name: str, value: object, right: str) -> None:
    """Raises `InputError` naming the option, its value and what would be right."""
    if not holds:
        option = "--" + name.replace("_", "-")
        raise InputError(f"{option} is {value!r}; it must be {right}.")


@dataclass(frozen=True)
class Config:
    """Sizes, rates and thresholds of both phases.

    Raises:
        InputError: a field is outside its range.
    """

    # Data
    corpus: str = "chitchat"
    """Text to learn: `chitchat`, a .txt file, a .jsonl, .json or .parquet file with a `text` or
    `messages` column, a folder of .txt, .jsonl and .parquet files, or the name of a dataset on the
    Hugging Face Hub."""
    tokenizer: str = "train"
    """`train` makes a byte-level BPE from the training split; else the path of a tokenizer.json."""
    vocab_size: int = 4096
    """Entries of the tokenizer that is trained; a given tokenizer brings its own number."""
    num_samples: int | None = 192
    """Training sequences, each of max-seq-length tokens; fewer where the corpus has fewer, and all
    that it has for None."""
    num_val_samples: int | None = None
    """Validation sequences; None takes as many as make 8 x context-dim tokens, at least 8,192."""
    max_seq_length: int = 128
    """Tokens in a sequence."""
    batch_size: int = 4
    """Sequences in a batch, those of all devices together."""
    num_workers: int = 0
    """Processes that read batches ahead; batches are the same whatever their number."""

    # Context network
    num_layers: int = 1
    """Residual layers of the context network."""
    context_dim: int = 768
    """Entries of a context vector (C)."""
    embed_dim: int = 256
    """Entries of a token embedding as the context network reads it (E)."""
    memory: Memory = "gated"
    """How a context is carried on: `residual` adds an update to it; `gated` also rotates it, learns how
    much tokens overwrite, and lets rare ones overwrite more."""
    update_scale: float = 1.0
    """Factor on the update of the context; smaller remembers longer. A gated memory only starts with
    it: how much it overwrites is learnt."""
    gate_damping: float = 0.25
    """How much less a frequent token overwrites of a gated memory: its rarity to this power; 0 and
    all overwrite alike, 0.5 and all frequent tokens have equal parts in the contexts."""

    # Phase 1
    dist_reg_weight: float = 0.55
    """Weight w of diversity; convergence has 1 - w. This is what the study tunes."""
    diversity_loss: DiversityLoss = "log_det"
    """What measures diversity: the distance of the contexts' `covariance` from the identity,
    VICReg's `variance_covariance`, the `log_det` of their second moments, which weighs empty
    directions most, or their `dispersion` around the mean, which is blind to directions."""
    contraction_weight: float = 0.012
    """Weight, within convergence, of what a disturbance of a context leaves in all later ones. Larger
    makes contexts forget sooner; 0 leaves it out."""
    neighbour_share: float = 0.7
    """Share of a token embedding's variance that comes from the tokens that stood before the token
    in the training text, from 0 (random embeddings) to 1."""
    phase1_learning_rate: float = 3e-4
    """Highest learning rate of Phase 1, reached after the warm-up."""
    phase1_max_epochs: int = 6
    """Sweeps over the training data at most."""
    phase1_convergence_threshold: float = 1e-2
    """A position has converged when the mean square change of its context is below this."""
    phase1_min_converged_ratio: float = 0.95
    """Phase 1 stops when this share of the positions has converged."""
    ema_momentum: float = 0.9
    """Momentum of the moving averages of the contexts' mean and covariance, from 0 to below 1; they
    reach back over 8 to 64 x context-dim contexts."""
    phase1_measure_every: int | None = None
    """Sweeps from one measurement of unseen text (effective rank, |cos|, token sensitivity) to the
    next; the last sweep has one always. None measures more rarely the fewer the training tokens."""

    # Phase 2
    phase2_learning_rate: float = 8e-3
    """Highest learning rate of Phase 2, reached after the warm-up."""
    phase2_epochs: int = 5
    """Epochs of Phase 2."""
    phase2_optimizer: Phase2Optimizer = "adamw"
    """What trains Phase 2: `adamw` all weights; `muon` the matrices of hidden layers, and AdamW the
    others."""
    freeze_context: bool = True
    """Compute the contexts once and train the token head alone."""
    phase2_num_sweeps: int = 1
    """Sweeps that gradients flow through where the contexts are not frozen."""
    phase2_gradient: Phase2Gradient = "memory"
    """How far back gradients flow through contexts that are not frozen: `sweeps`, a token a sweep;
    `memory`, over the whole text, as far as a gated memory remembers."""
    share_embedding: bool = True
    """Where the contexts are not frozen, the context network reads the token head's embedding, which
    starts from its own."""
    start_embedding: bool = False
    """The token head's embedding starts from that of Phase 1 where it is not shared too: worth it
    on half a million tokens or more."""
    context_learning_rate: float = 2e-3
    """Highest learning rate of the context network in Phase 2, where it is not frozen."""
    head_embed_dim: int = 128
    """Entries of the token head's own token embedding."""
    head_hidden_dim: int = 512
    """Units of the token head's hidden layer."""
    context_scale: float = 0.3
    """Factor on the contexts that the token head reads; smaller, and tokens are learnt first."""
    prior_count: float = 2.0
    """Occurrences of a token in the training text at which the token head trusts half of what it
    learnt after it, and tokens' frequencies for the rest; 0 trusts all."""
    copy_window: int = 0
    """Last tokens of the text of which the token head raises those that may be said again; 0 and the
    context is all that it knows of the past."""
    attention_window: int = 0
    """Last positions of the text, the current one among them, that the token head attends to; 0 and
    it has no attention."""
    attention_layers: int = 1
    """Blocks of attention and a feed-forward layer in the token head, one on top of the other; without
    `attention_window` there are none."""
    recurrent_layers: int = 0
    """Blocks of a gated recurrence and a feed-forward layer in the token head, in turns with those of
    attention and beginning with one of these; they remember all of the text."""
    feed_forward_factor: int = 2
    """Units of the feed-forward layer in a block of attention or recurrence, for every entry of head-embed-dim."""
    query_key_norm: bool = True
    """Scale the queries and keys of attention to one length."""
    convolution_kernel: int = 0
    """Last positions, the current one among them, that short convolutions in the token head mix: of
    its embeddings, and of what each feed-forward layer reads; 0 and there are none."""
    dropout: float = 0.3
    """Share of the token head's activations that is dropped in training."""
    label_smoothing: float = 0.0
    """Share of the answer that training spreads over all tokens, which keeps a head from learning a
    small text by heart; 0 teaches the next token alone."""
    weight_decay: float = 2.0
    """Decoupled weight decay of Phase 2's matrices."""
    warmup_ratio: float = 0.1
    """Share of a phase's steps in which its learning rate rises."""
    lr_schedule: LrSchedule = "cosine"
    """What the learning rate of either phase does after its rise: falls to 0 along a `cosine` or a
    line (`linear`), stays (`constant`), falls with the step's `inverse_sqrt`, or stays and falls to
    0 in the last fifth of the steps (`warmup_stable_decay`)."""

    # What disqualifies a trial after Phase 1
    identity_mapping_threshold: float = 0.95
    """Mean |cosine| between a context and the next one above which F is an identity mapping."""
    min_token_sensitivity: float = 0.01
    """Share of a context that must change when its token is swapped."""
    min_effective_rank: float = 0.5
    """Effective rank of the contexts, as a share of context-dim, below which a trial is pruned."""

    # Training
    gradient_clip: float = 1.0
    """Largest norm of a gradient; 0 does not clip."""
    random_seed: int = 42
    """Seed of the weights, the order of batches, dropout and the sampler."""
    precision: Precision = "32-true"
    """Arithmetic of both phases."""
    accelerator: Accelerator = "auto"
    """Where to train."""
    context_dtype: ContextDtype = "float32"
    """Type in which contexts are kept from sweep to sweep; bfloat16 takes half of the memory.
    With precision 64-true, float32 keeps all of their 64 bits."""
    context_storage: ContextStorage = "auto"
    """Where contexts are kept: the accelerator's memory, main memory, or a file in cache-dir; auto
    takes the first of these of whose free space they fill half at most."""
    cache_dir: str = ".cache"
    """Folder of the tokenised corpora, and of contexts that are kept on disk."""

    def __post_init__(self) -> None:
        for name in _COUNTS:
            self._require(name, lambda value: value >= 1, "1 or more")
        for name in _RATES:
            self._require(name, lambda value: 0 < value < math.inf, "a positive number")
        for name in _SHARES:
            self._require(name, lambda value: 0 <= value <= 1, "between 0 and 1")
        for name in ("ema_momentum", "dropout", "label_smoothing"):
            self._require(name, lambda value: 0 <= value < 1, "at least 0 and below 1")
        for name in (
            "weight_decay", "prior_count", "gradient_clip", "random_seed", "num_workers",
            "contraction_weight", "gate_damping", "copy_window", "attention_window",
            "convolution_kernel", "recurrent_layers",
        ):  # fmt: skip
            self._require(name, lambda value: 0 <= value < math.inf, "0 or more")
        self._require("random_seed", lambda value: value < 2**32, "below 2**32")
        self._require("max_seq_length", lambda value: value >= 2, "2 or more")
        self._require(
            "vocab_size", lambda value: value >= 257, "257 or more (bytes and end-of-text)"
        )
        for name in ("num_samples", "num_val_samples", "phase1_measure_every"):
            self._require(name, lambda value: value is None or value >= 1, "1 or more")
        for name, largest in _LARGEST.items():
            self._require(name, lambda value, most=largest: value <= most, f"{largest} at most")
        for name, choices in _CHOICES.items():
            self._require(
                name, lambda value, choices=choices: value in choices, f"one of {choices}"
            )
        for name in ("corpus", "tokenizer", "cache_dir"):
            self._require(name, lambda value: bool(value.strip()), "a name or a path")

    def _require(self, name: str, holds: Callable[..., bool], right: str) -> None:
        value = getattr(self, name)
        require(holds(value), name, value, right)


_COUNTS = (
    "batch_size", "num_layers", "context_dim", "embed_dim", "phase1_max_epochs",
    "phase2_epochs", "phase2_num_sweeps", "head_embed_dim", "head_hidden_dim", "attention_layers",
    "feed_forward_factor",
)  # fmt: skip
_LARGEST = {
    "vocab_size": 2**24,
    "max_seq_length": 2**20,
    "batch_size": 2**20,
    "num_workers": 2**8,
    "num_layers": 2**10,
    "context_dim": 2**16,
    "embed_dim": 2**16,
    "phase2_num_sweeps": 2**20,
    "head_embed_dim": 2**16,
    "head_hidden_dim": 2**16,
    "copy_window": 2**20,
    "attention_window": 2**20,
    "attention_layers": 2**10,
    "recurrent_layers": 2**10,
    "feed_forward_factor": 2**10,
    "convolution_kernel": 2**10,
}
"""Where a mistyped number would take all memory before anything is said. What is bounded by the corpus
or takes time alone has none."""
_RATES = (
    "update_scale",
    "context_scale",
    "phase1_learning_rate",
    "phase1_convergence_threshold",
    "phase2_learning_rate",
    "context_learning_rate",
)
_SHARES = (
    "dist_reg_weight", "phase1_min_converged_ratio", "warmup_ratio", "identity_mapping_threshold",
    "min_token_sensitivity", "min_effective_rank", "neighbour_share",
)  # fmt: skip
_CHOICES = {
    name: get_args(hint)
    for name, hint in get_type_hints(Config).items()
    if get_origin(hint) is Literal
}


def published() -> Config:
    """The published run: 5 samples of 128 tokens, 6 residual layers of 768 dimensions."""
    return dataclasses.replace(
        Config(), num_samples=5, max_seq_length=128, num_layers=6, context_dim=768, embed_dim=768,
        memory="residual", update_scale=0.5, diversity_loss="covariance", dist_reg_weight=0.05,
        phase1_learning_rate=3e-3, ema_momentum=0.99, contraction_weight=0, neighbour_share=0,
    )  # fmt: skip


def full() -> Config:
    """All of a text of half a million tokens or more, for the lowest perplexity: 1.5 million weights."""
    return dataclasses.replace(
        Config(), num_samples=None, batch_size=32, context_dim=48, embed_dim=160,
        dist_reg_weight=0.02, freeze_context=False, phase2_epochs=3,
        phase2_optimizer="muon", phase2_learning_rate=1.8e-2, context_learning_rate=6e-3,
        weight_decay=0.1, dropout=0.0,
        head_embed_dim=160, head_hidden_dim=208, copy_window=128, attention_window=128,
        attention_layers=1, recurrent_layers=2, feed_forward_factor=3, convolution_kernel=2,
    )  # fmt: skip


def smoke() -> Config:
    """Sizes that run in seconds, to see that everything works; its figures mean nothing."""
    return dataclasses.replace(
        Config(), num_samples=16, max_seq_length=64, batch_size=4, vocab_size=512, context_dim=32,
        embed_dim=32, head_embed_dim=32, head_hidden_dim=32, phase1_max_epochs=3, phase2_epochs=2,
    )  # fmt: skip


PRESETS: Mapping[str, Callable[[], Config]] = {
    "default": Config,
    "full": full,
    "published": published,
    "smoke": smoke,
}
