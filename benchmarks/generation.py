"""What a token costs at different positions of a text, beside an LSTM and a GPT with a cache.

    python benchmarks/generation.py [--positions 100 10000 100000] [--tokens 100]

Ours, the LSTM and the GPT have about as many weights that work on the past, random ones, and the same
token head; "ours, full" is ours with the blocks of `--preset full`: attention, recurrences and
convolutions.
A text of random tokens is read up to each position; the LSTM's state and the GPT's cache are filled
with random numbers instead, which cost as much to go on from. All then write tokens greedily, in turns; what is
printed is the processor time of a token, the median of a round, and the lowest of five rounds.

Shapes: C = state, E = embedding, V = vocabulary, B = 1 sequence, H heads, T positions.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.options import parse_alone, run
from config import Config, full, require
from lightning_modules.settings import context_network
from lightning_modules.token_prediction_module import recall_of
from models.generation import generate, read_prompt
from models.token_head import Recall, TokenHead

_HEAD_DIM = 64
_NO_RECALL = Recall()
_FULL = recall_of(full())._replace(copy_window=0)
_WARM_UP = 5
"""Tokens of a round before the first that counts."""
_ROUNDS = 5


@dataclass(frozen=True)
class Options:
    """What to measure."""

    positions: tuple[int, ...] = (100, 10_000, 100_000)
    """Tokens of a text before the first that is written."""
    tokens: int = 40
    """Tokens that are timed in a round."""
    vocab_size: int = Config.vocab_size
    """V."""

    def __post_init__(self) -> None:
        require(min(self.positions, default=1) >= 1, "positions", self.positions, "numbers from 1")
        for name in ("tokens", "vocab_size"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")


class Contender(NamedTuple):
    """start: text up to a position to the tokens that follow it, of which so many will be asked for.
    state_bytes: of what is kept of the text, at a position."""

    name: str
    num_weights: int
    start: Callable[[int, int], Iterator[Tensor]]
    state_bytes: Callable[[int], int]


def main() -> None:
    options = parse_alone(Options, __doc__)
    torch.manual_seed(0)
    contenders = [build(options.vocab_size) for build in (_ours, _ours_full, _lstm, gpt)]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, V = {options.vocab_size}")
    cases = [(c, position) for c in contenders for position in options.positions]
    num_tokens = _ROUNDS * (_WARM_UP + options.tokens)
    texts = [contender.start(position, num_tokens) for contender, position in cases]
    rounds = [[_milliseconds(text, options.tokens) for text in texts] for _ in range(_ROUNDS)]
    lowest = [min(times) for times in zip(*rounds, strict=True)]
    print(
        f"{'model':10}{'weights':>10}{'position':>10}{'state KiB':>12}{'ms a token':>12}{'ratio':>8}"
    )
    for index, (contender, position) in enumerate(cases):
        first = lowest[index - index % len(options.positions)]
        print(
            f"{contender.name:10}{contender.num_weights:10,}{position:10,}"
            f"{contender.state_bytes(position) / 1024:12,.1f}"
            f"{lowest[index]:12.3f}{lowest[index] / first:8.2f}"
        )


def _milliseconds(tokens: Iterator[Tensor], num_tokens: int) -> float:
    for _ in islice(tokens, _WARM_UP):
        pass
    seconds = []
    for _ in range(num_tokens):
        start = time.process_time()
        next(tokens)
        seconds.append(time.process_time() - start)
    return 1e3 * statistics.median(seconds)


def _greedy(logits: Tensor) -> Tensor:
    return logits.argmax(dim=-1)


def _head(vocab_size: int, context_dim: int, recall: Recall = _NO_RECALL) -> TokenHead:
    config = Config()
    return TokenHead(
        vocab_size=vocab_size,
        context_dim=context_dim,
        embed_dim=config.head_embed_dim,
        hidden_dim=config.head_hidden_dim,
        dropout=config.dropout,
        context_scale=config.context_scale,
        prior_count=config.prior_count,
        recall=recall,
    ).eval()


def _ours(vocab_size: int, name: str = "ours", recall: Recall = _NO_RECALL) -> Contender:
    config = Config()
    network = context_network(config, vocab_size)
    head = _head(vocab_size, config.context_dim, recall)

    def start(position: int, _: int) -> Iterator[Tensor]:
        state = read_prompt(network, head, torch.randint(vocab_size, (1, position)))
        return generate(network, head, state, _greedy)

    def state_bytes(position: int) -> int:
        num_kept = min(position, max(recall.attention_window - 1, 0))
        num_before = min(position, max(recall.kernel - 1, 0))
        num_vectors = (
            1
            + recall.num_attending * (2 * num_kept + num_before)
            + recall.recurrent_layers * (1 + 2 * num_before)
        )
        num_tokens = min(position, 1 + num_before)
        return 4 * (config.context_dim + config.head_embed_dim * num_vectors) + 8 * num_tokens

    num_weights = _count_matrices(network.layers) + _count_matrices(head.attention)
    return Contender(name, num_weights, start, state_bytes)


def _ours_full(vocab_size: int) -> Contender:
    return _ours(vocab_size, "ours, full", _FULL)


def _lstm(vocab_size: int) -> Contender:
    """As wide as makes as many weights: 4 (C + E) C."""
    config = Config()
    embed_dim, num_weights = config.embed_dim, _num_weights()
    hidden_dim = round(((embed_dim**2 + num_weights) ** 0.5 - embed_dim) / 2)
    embedding = nn.Embedding(vocab_size, embed_dim)
    cell = nn.LSTM(embed_dim, hidden_dim, batch_first=True)
    head = _head(vocab_size, hidden_dim)

    @torch.no_grad()
    def start(_: int, __: int) -> Iterator[Tensor]:
        state = (torch.randn(1, 1, hidden_dim), torch.randn(1, 1, hidden_dim))
        token_B = torch.randint(vocab_size, (1,))
        while True:
            token_B = _greedy(head(state[0][-1], token_B))
            yield token_B
            _, state = cell(embedding(token_B).unsqueeze(1), state)

    return Contender("LSTM", _count_matrices(cell), start, lambda _: 2 * 4 * hidden_dim + 8)


class _Block(nn.Module):
    """Attention over a cache and a feed-forward layer, both before a LayerNorm; 12 C² weights.

    Positions are left out, which changes what is attended to and not what it costs.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.wide = nn.Linear(dim, 4 * dim)
        self.narrow = nn.Linear(4 * dim, dim)

    def forward(self, hidden_BC: Tensor, cache: Tensor, position: int) -> Tensor:
        """cache: (2, B, H, T, C / H), which gets this position's keys and values."""
        parts = self.query_key_value(self.norms[0](hidden_BC)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (-1, _HEAD_DIM)) for part in parts)
        cache[0, :, :, position], cache[1, :, :, position] = key, value
        keys, values = cache[:, :, :, : position + 1]
        found = F.scaled_dot_product_attention(query.unsqueeze(2), keys, values)
        hidden_BC = hidden_BC + self.out(found.flatten(1))
        fed_BC: Tensor = self.narrow(F.gelu(self.wide(self.norms[1](hidden_BC))))
        return hidden_BC + fed_BC


def gpt(vocab_size: int, num_layers: int = 2) -> Contender:
    """As wide, in whole heads, as makes about as many weights: 12 C² a layer."""
    num_heads: int = round((_num_weights() / (12 * num_layers)) ** 0.5 / _HEAD_DIM)
    dim = num_heads * _HEAD_DIM
    embedding = nn.Embedding(vocab_size, dim)
    blocks = nn.ModuleList(_Block(dim) for _ in range(num_layers))
    head = _head(vocab_size, dim)

    @torch.no_grad()
    def start(position: int, num_tokens: int) -> Iterator[Tensor]:
        # Room for what is written; a cache that grows would be copied, too.
        cache = torch.randn(num_layers, 2, 1, num_heads, position + num_tokens, _HEAD_DIM)
        token_B = torch.randint(vocab_size, (1,))
        while True:
            hidden_BC = embedding(token_B)
            for layer, block in enumerate(blocks):
                hidden_BC = block(hidden_BC, cache[layer], position)
            token_B = _greedy(head(hidden_BC, token_B))
            yield token_B
            position += 1

    def state_bytes(position: int) -> int:
        return 2 * 4 * num_layers * dim * position

    return Contender("GPT", _count_matrices(blocks), start, state_bytes)


def _count_matrices(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.ndim == 2)


def _num_weights() -> int:
    config = Config()
    return config.context_dim * (config.context_dim + config.embed_dim)


if __name__ == "__main__":
    run(main)
