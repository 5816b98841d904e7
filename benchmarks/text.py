"""Rows of a text that the benchmarks of solver and GPU read.

Shapes: N tokens of a text, B rows of T of them.
"""

import torch
from torch import Tensor


def text_rows(tokens_N: Tensor, num_rows: int, num_tokens: int) -> Tensor:
    """(B, T) tokens that stand one after the other; rows start at different places of the text.

    What is longer than the text goes on at its start.
    """
    starts = torch.arange(num_rows).unsqueeze(1) * max(1, len(tokens_N) // num_rows)
    return tokens_N.cpu()[(starts + torch.arange(num_tokens)) % len(tokens_N)]
