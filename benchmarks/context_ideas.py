"""What frozen contexts would be worth: ideas, measured with the token head alone.

    python benchmarks/context_ideas.py --num-samples 192 --epochs 5 --learning-rate 8e-3 --weight-decay 2
    python benchmarks/context_ideas.py --num-samples 512 --num-val-samples 128 --ideas zeros recall

Contexts are made by each idea without a Lightning module or sweeps: of a linear memory
`c_t = LayerNorm(keep_t roll(c_{t-1}) + gate_t keep_t u(x_t))`, solved in closed form, or of the last
tokens as they are. Each is then given to the same token head, trained over the same rows, and the
lowest validation perplexity of its epochs is printed. Nothing here sees a next token but the head.

Shapes: B rows, T tokens, E = embed_dim, C = 3 E entries, V = vocabulary.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.baselines.training import Recipe, fit
from benchmarks.options import parse_alone, run
from config import Config, InputError
from datamodules.token_datamodule import TokenDataModule
from models.context_network import normalise
from models.linear_recurrence import rotated_decayed_sum
from models.neighbour_embedding import neighbour_embedding
from models.sweeps import shift_right
from models.token_head import TokenHead

_ROWS_AT_ONCE = 64
_RECALL_LAGS = (1, 2, 3)

Contexts = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Options:
    """Sizes and the head's training."""

    ideas: tuple[str, ...] = ()
    """Ideas to measure, all where none is given."""
    num_samples: int = 192
    """Training rows."""
    num_val_samples: int = 64
    """Validation rows."""
    epochs: int = 5
    """Of the head."""
    learning_rate: float = 8e-3
    """Of the head, highest."""
    weight_decay: float = 2.0
    """Of the head's matrices."""
    batch_size: int = 4
    """Rows in a step."""
    recall_epochs: int = 3
    """Of the network that learns to recall."""
    embed_dim: int = 256
    """Entries of an embedding (E); contexts have three times as many."""
    corpus: str = Config.corpus
    """As train.py has it."""
    vocab_size: int = Config.vocab_size
    """As train.py has it."""
    max_seq_length: int = Config.max_seq_length
    """Tokens of a row."""
    cache_dir: str = Config.cache_dir
    """Folder of the tokenised corpora."""


class Text:
    """Rows, counts and the embeddings that ideas start from."""

    def __init__(self, options: Options) -> None:
        config = dataclasses.replace(
            Config(), num_samples=options.num_samples, num_val_samples=options.num_val_samples,
            corpus=options.corpus, vocab_size=options.vocab_size,
            max_seq_length=options.max_seq_length, cache_dir=options.cache_dir,
        )  # fmt: skip
        data = TokenDataModule(config)
        data.setup()
        self.train_BT, self.val_BT = data.train_rows.tokens, data.val_rows.tokens
        self.counts_V = data.token_counts()
        self.vocab_size = len(self.counts_V)
        self.embed_dim, self.context_dim = options.embed_dim, 3 * options.embed_dim
        torch.manual_seed(0)
        self.random_VE = normalise(torch.randn(self.vocab_size, self.embed_dim))
        self.neighbours_VE = self._neighbours(self.train_BT)
        # Read from right to left, what stands before a token is what follows it.
        following_VE = self._neighbours(self.train_BT.flip(1))
        self.both_VE = normalise(self.neighbours_VE + following_VE)

    def excess(self) -> Tensor:
        """How much more frequent than 1 / C each token is, 1 or more."""
        counts = self.counts_V + 0.25
        return (self.context_dim * counts / counts.sum()).clamp(min=1)

    def _neighbours(self, rows_BT: Tensor) -> Tensor:
        embedding = neighbour_embedding(
            [rows_BT], vocab_size=self.vocab_size, embed_dim=self.embed_dim
        )
        known = embedding.any(dim=1, keepdim=True)
        return torch.where(known, normalise(embedding), self.random_VE)


def zeros(text: Text, options: Options) -> Contexts:
    """No context: the head knows the current token alone."""
    return lambda tokens: torch.zeros(*tokens.shape, text.context_dim)


def last_tokens(embedding: str) -> Callable[[Text, Options], Contexts]:
    """The current token and the two before it, each in E entries of its own."""

    def make(text: Text, options: Options) -> Contexts:
        table = getattr(text, embedding)

        def contexts(tokens: Tensor) -> Tensor:
            now = table[tokens]
            before = shift_right(now)
            return torch.cat([now, before, shift_right(before)], dim=-1)

        return contexts

    return make


def linear_memory(
    embedding: str, scales: tuple[float, ...], damping: float
) -> Callable[[Text, Options], Contexts]:
    """A linear memory; of several scales, C is shared between memories of each."""

    def make(text: Text, options: Options) -> Contexts:
        width, embed_dim = text.context_dim // len(scales), text.embed_dim
        torch.manual_seed(0)
        weights = [torch.randn(embed_dim, width) / embed_dim**0.5 for _ in scales]
        writes = [normalise((getattr(text, embedding) @ weight).relu()) for weight in weights]
        gates = [scale * text.excess() ** -damping for scale in scales]

        def contexts(tokens: Tensor) -> Tensor:
            parts = [_remember(g[tokens], w[tokens]) for g, w in zip(gates, writes, strict=True)]
            return torch.cat(parts, dim=-1)

        return contexts

    return make


def _remember(gate_BT: Tensor, writes_BTC: Tensor) -> Tensor:
    keep = (1 + gate_BT.square()).rsqrt()
    return normalise(rotated_decayed_sum(keep, (gate_BT * keep).unsqueeze(-1) * writes_BTC))


class Recall(nn.Module):
    """A linear memory whose embedding learns to recall tokens that were dropped from its input.

    Of half of the positions nothing is written; from the contexts one to three places later the
    dropped token is predicted. Positions that are predicted have been read over: no context is asked
    for a token that it has yet to meet.
    """

    def __init__(self, text: Text) -> None:
        super().__init__()
        self.embedding = nn.Parameter(text.random_VE.clone())
        embed_dim, context_dim = text.embed_dim, text.context_dim
        self.write = nn.Linear(embed_dim, context_dim)
        self.read = nn.ModuleList(
            nn.Sequential(
                nn.Dropout(0.4), nn.Linear(context_dim, embed_dim), nn.GELU(),
                nn.Linear(embed_dim, 128),
            )
            for _ in _RECALL_LAGS
        )  # fmt: skip
        self.output = nn.Linear(128, text.vocab_size)
        nn.init.normal_(self.output.weight, std=0.02)

    def contexts(self, tokens: Tensor, dropped: Tensor | None = None) -> Tensor:
        gate = torch.ones(tokens.shape)
        if dropped is not None:
            gate = gate.masked_fill(dropped, 0)
        return _remember(gate, normalise(self.write(normalise(self.embedding)[tokens])))

    def forward(self, tokens: Tensor) -> Tensor:
        dropped = torch.rand(tokens.shape) < 0.5
        contexts = self.contexts(tokens, dropped)
        losses = []
        for lag, read in zip(_RECALL_LAGS, self.read, strict=True):
            asked = dropped[:, :-lag] & ~dropped[:, lag:]
            logits = self.output(read(contexts[:, lag:][asked]))
            losses.append(F.cross_entropy(logits, tokens[:, :-lag][asked]))
        return torch.stack(losses).mean()


def recall(text: Text, options: Options) -> Contexts:
    """Contexts of a network that was trained to recall dropped tokens."""
    torch.manual_seed(0)
    network = Recall(text)
    recipe = _recipe(options.recall_epochs, 3e-3, 2.0, 2 * options.batch_size)
    fit(network, network, text.train_BT, recipe, is_over=lambda: False)
    network.requires_grad_(False)
    return network.contexts


IDEAS: Mapping[str, Callable[[Text, Options], Contexts]] = {
    "zeros": zeros,
    "last-three-tokens-random": last_tokens("random_VE"),
    "last-three-tokens-neighbours": last_tokens("neighbours_VE"),
    "last-three-tokens-both-sides": last_tokens("both_VE"),
    "memory-random-0.7-damped": linear_memory("random_VE", (0.7,), 0.5),
    "memory-random-0.7": linear_memory("random_VE", (0.7,), 0.0),
    "memory-random-1": linear_memory("random_VE", (1.0,), 0.0),
    "memory-random-1.5": linear_memory("random_VE", (1.5,), 0.0),
    "memory-neighbours-0.7-damped": linear_memory("neighbours_VE", (0.7,), 0.5),
    "memory-neighbours-0.5": linear_memory("neighbours_VE", (0.5,), 0.0),
    "memory-neighbours-1": linear_memory("neighbours_VE", (1.0,), 0.0),
    "memory-neighbours-1.5": linear_memory("neighbours_VE", (1.5,), 0.0),
    "memory-neighbours-2.5": linear_memory("neighbours_VE", (2.5,), 0.0),
    "memory-neighbours-3-1-0.4": linear_memory("neighbours_VE", (3.0, 1.0, 0.4), 0.0),
    "recall": recall,
}


def main() -> int:
    options = parse_alone(Options, __doc__)
    unknown = set(options.ideas) - IDEAS.keys()
    if unknown:
        raise InputError(f"--ideas has {', '.join(sorted(unknown))}; there are {', '.join(IDEAS)}.")
    text = Text(options)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{text.train_BT.numel():,} training and {text.val_BT.numel():,} validation tokens")
    print(f"{'contexts':32} {'val_ppl':>8}  each epoch")
    for name in options.ideas or IDEAS:
        start = time.monotonic()
        contexts = IDEAS[name](text, options)
        perplexities = measure(text, contexts, options)
        each = " ".join(f"{value:.1f}" for value in perplexities)
        seconds = time.monotonic() - start
        print(f"{name:32} {min(perplexities):8.2f}  {each}, {seconds:.0f} s", flush=True)
    return 0


def measure(text: Text, contexts: Contexts, options: Options) -> list[float]:
    """Validation perplexity of a head on contexts, after every epoch."""
    defaults = Config()
    torch.manual_seed(0)
    head = TokenHead(
        vocab_size=text.vocab_size, context_dim=text.context_dim, embed_dim=defaults.head_embed_dim,
        hidden_dim=defaults.head_hidden_dim, dropout=defaults.dropout,
        context_scale=defaults.context_scale, prior_count=defaults.prior_count,
    )  # fmt: skip
    head.set_token_counts(text.counts_V)

    def loss(tokens: Tensor) -> Tensor:
        with torch.no_grad():
            frozen = contexts(tokens)[:, :-1]
        return head.loss(frozen, tokens[:, :-1], tokens[:, 1:])

    perplexities = []

    def validate() -> bool:
        head.eval()
        with torch.no_grad():
            losses = [
                loss(rows) * len(rows)
                for rows in text.val_BT.chunk(-(-len(text.val_BT) // _ROWS_AT_ONCE))
            ]
        perplexities.append(math.exp(float(sum(losses)) / len(text.val_BT)))
        return False

    recipe = _recipe(
        options.epochs, options.learning_rate, options.weight_decay, options.batch_size
    )
    fit(head, loss, text.train_BT, recipe, validate)
    return perplexities


def _recipe(num_epochs: int, learning_rate: float, weight_decay: float, batch_size: int) -> Recipe:
    return Recipe(
        learning_rate=learning_rate, weight_decay=weight_decay, num_epochs=num_epochs,
        patience=num_epochs, batch_size=batch_size, seed=0,
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
