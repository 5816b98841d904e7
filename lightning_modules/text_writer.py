"""Goes on with a text, token by token, at the same cost for each."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.text_stream import TextStream
from datamodules.tokenizer import end_of_text_id
from lightning_modules.model_folder import LanguageModel
from models.generation import GenerationState, generate, read_prompt
from models.sampling import choose


class Sampling(NamedTuple):
    """How a token is drawn.

    temperature: of the probabilities; 0 takes the most probable token.
    top_p: the fewest tokens that have this probability together are drawn from; 1 takes all.
    top_k: so many of the most probable are drawn from; None takes all.
    """

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int | None = None


class ReadText(NamedTuple):
    """What a model keeps of a text that it has read, and the text's tokens."""

    state: GenerationState
    token_ids: list[int]


def read_text(model: LanguageModel, text: str = "") -> ReadText:
    """Reads the beginning of a document: end-of-text and it, as documents follow in training."""
    token_ids = model.tokenizer.encode(text, add_special_tokens=False).ids
    ids = [end_of_text_id(model.tokenizer), *token_ids]
    module = model.module
    tokens_BT = torch.tensor([ids], device=module.device)
    return ReadText(read_prompt(module.network, module.head, tokens_BT), token_ids)


def write_text(
    model: LanguageModel,
    read: ReadText,
    *,
    seed: int,
    sampling: Sampling = Sampling(),  # noqa: B008  # immutable
    max_new_tokens: int = 200,
    ignore_end_of_text: bool = False,
) -> Iterator[str]:
    """Writes what follows a text, in pieces of whole characters.

    Args:
        model: what has read the text.
        read: stays as it is, so that several texts can follow it.
        seed: of the draws, which are made on the CPU: the same seed draws the same wherever the
            probabilities were computed.
        sampling: how each token is drawn.
        max_new_tokens: written at most; it ends sooner where the document does.
        ignore_end_of_text: go on with another document instead.
    """
    end = None if ignore_end_of_text else end_of_text_id(model.tokenizer)
    stream = TextStream(model.tokenizer, read.token_ids)
    module, chooser = model.module, _chooser(sampling, seed)
    for token_B in islice(
        generate(module.network, module.head, read.state, chooser), max_new_tokens
    ):
        token_id = int(token_B)
        if token_id == end:
            break
        yield stream.feed(token_id)
    yield stream.finish()


def _chooser(sampling: Sampling, seed: int) -> Callable[[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def choose_on_cpu(logits_BV: Tensor) -> Tensor:
        return choose(logits_BV.cpu(), **sampling._asdict(), generator=generator)

    return choose_on_cpu
