"""Linear recurrences over positions, solved by matrix products instead of token by token.

Shapes: B sequences, T positions, C entries.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 128
"""Positions that one triangular matrix product takes."""


def decayed_sum(keep_BT: Tensor, inputs_BTC: Tensor) -> Tensor:
    """`y_t = keep_t y_{t-1} + x_t` from `y_0 = 0`, (B, T, C).

    Within a chunk as one product with the triangular matrix of decays, `prod keep` from s to t;
    chunks are joined by the same recurrence over their ends. Decays are kept as logarithms, which
    neither overflow nor underflow. As in the state-space duality of arXiv 2405.21060.

    Args:
        keep_BT: (B, T), above 0 and at most 1.
        inputs_BTC: (B, T, C).
    """
    num_rows, num_positions, width = inputs_BTC.shape
    # The product of a whole chunk may underflow to 0, which has no logarithm.
    keep_BT = keep_BT.clamp_min(torch.finfo(keep_BT.dtype).tiny)
    if num_positions <= _CHUNK:
        return _within_chunk(keep_BT, inputs_BTC)
    padding = -num_positions % _CHUNK
    keep = F.pad(keep_BT, (0, padding), value=1.0).view(-1, _CHUNK)
    inputs = F.pad(inputs_BTC, (0, 0, 0, padding)).view(-1, _CHUNK, width)
    local = _within_chunk(keep, inputs)
    from_start = keep.log().cumsum(dim=-1).exp()
    ends = decayed_sum(from_start[:, -1].view(num_rows, -1), local[:, -1].view(num_rows, -1, width))
    carried = torch.cat([torch.zeros_like(ends[:, :1]), ends[:, :-1]], dim=1)
    whole = local + from_start.unsqueeze(-1) * carried.reshape(-1, 1, width)
    return whole.view(num_rows, -1, width)[:, :num_positions]


def rotated_decayed_sum(keep_BT: Tensor, inputs_BTC: Tensor) -> Tensor:
    """`y_t = keep_t roll(y_{t-1}) + x_t`, roll by one place: (B, T, C).

    Seen from coordinates that are rolled along with the memory the rotation is gone.
    """
    num_positions, width = inputs_BTC.shape[1:]
    device = inputs_BTC.device
    position = torch.arange(num_positions, device=device).unsqueeze(1)
    place = torch.arange(width, device=device)
    there = ((place + position) % width).expand_as(inputs_BTC)
    back = ((place - position) % width).expand_as(inputs_BTC)
    return decayed_sum(keep_BT, inputs_BTC.gather(-1, there)).gather(-1, back)


def _within_chunk(keep_BT: Tensor, inputs_BTC: Tensor) -> Tensor:
    log_decay = keep_BT.log().cumsum(dim=-1)
    difference = log_decay.unsqueeze(-1) - log_decay.unsqueeze(-2)
    # Above the diagonal the difference is positive and could overflow: masked before exp.
    future = torch.ones_like(difference, dtype=torch.bool).triu(1)
    decay = difference.masked_fill(future, -torch.inf).exp()
    return decay.to(inputs_BTC.dtype) @ inputs_BTC
