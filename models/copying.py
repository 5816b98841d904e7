"""Copying: tokens that the text has said lately, and those that followed the current one before.

Shapes: B sequences, T positions, S tokens before the first of them, N = S + T, D features,
V = vocabulary.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GATE_BIAS = -2.0
"""Each way of copying starts with a tenth of the probability."""
_DECAY_LOGIT = 4.0
"""Both decays start at sigmoid(4) = 0.982 a token."""


class Copied(NamedTuple):
    """A part of a distribution, as shares of tokens of the text.

    own: (B, T, 1), what is left for the head's own distribution.
    shares: (B, T, N), probability that the token at a place of the text is said again; with `own` 1
        in all.
    text: (B, N), the tokens at these places.
    """

    own: Tensor
    shares: Tensor
    text: Tensor

    def added_to(self, logits_BTV: Tensor) -> Tensor:
        """Log probabilities (B, T, V) of the head's own distribution and what is copied."""
        own_BTV = self.own * torch.softmax(logits_BTV, dim=-1)
        text_BTN = self.text.unsqueeze(1).expand_as(self.shares)
        return _log(own_BTV.scatter_add(-1, text_BTN, self.shares.to(own_BTV.dtype)))

    def answer_nats(self, own_nats_BT: Tensor, answers_BT: Tensor) -> Tensor:
        """Nats (B, T) of answers, from those that the head's own distribution gives them."""
        says_it_BTN = self.text.unsqueeze(1) == answers_BT.unsqueeze(2)
        copied_BT = (self.shares * says_it_BTN).sum(dim=-1)
        return -_log(self.own.squeeze(-1) * (-own_nats_BT).exp() + copied_BT)


class Copying(nn.Module):
    """Gives a part of the next token's probability to tokens among the last `window` of the text.

    `p = g_0 p_own + g_1 said + g_2 followed`, where `said` is how often each token stands among the
    last `window`, and `followed` how often it does right after one that is the current token; both
    weigh a token s places back by a learnt decay to the power s. The gates are `softmax(0, U f + b)`
    of the features f that the output layer reads; where nothing followed, g_2 is 0.

    The mixture of a pointer sentinel (Merity et al., arXiv 1609.07843) over a cache whose matches are
    exact (Grave et al., arXiv 1612.04426), the second of which does what induction heads do (Olsson et
    al., arXiv 2209.11895). It reads the last `window + 1` tokens, so that a token costs the same at
    any position.

    Args:
        feature_dim: D.
        window: W, 1 or more.
    """

    def __init__(self, *, feature_dim: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.gates = nn.Linear(feature_dim, 2)
        nn.init.zeros_(self.gates.weight)
        nn.init.constant_(self.gates.bias, _GATE_BIAS)
        self.decay_logit = nn.Parameter(torch.full((2,), _DECAY_LOGIT))

    def forward(
        self, features_BTD: Tensor, tokens_BT: Tensor, earlier_BS: Tensor | None = None
    ) -> Copied:
        """What is copied after each position.

        Args:
            features_BTD: what the output layer reads, (B, T, D).
            tokens_BT: (B, T) ids.
            earlier_BS: (B, S) ids of what stands before them; none where None.
        """
        if earlier_BS is None:
            earlier_BS = tokens_BT[:, :0]
        text_BN = torch.cat([earlier_BS, tokens_BT], dim=1)
        num_positions, num_tokens = tokens_BT.shape[1], text_BN.shape[1]
        position = torch.arange(num_tokens, device=text_BN.device)
        distance_TN = position[num_tokens - num_positions :].unsqueeze(1) - position
        seen_TN = (distance_TN >= 0) & (distance_TN < self.window)
        log_decay_211 = F.logsigmoid(self.decay_logit).view(2, 1, 1)
        said_TN, decay_TN = (log_decay_211 * distance_TN.clamp_min(0)).exp() * seen_TN
        before_BN = F.pad(text_BN[:, :-1], (1, 0), value=-1)
        followed_BTN = decay_TN * (tokens_BT.unsqueeze(2) == before_BN.unsqueeze(1))
        num_followed_BT1 = followed_BTN.sum(dim=-1, keepdim=True)
        scores_BT2 = self.gates(features_BTD).to(said_TN.dtype)
        own_BT1 = torch.zeros_like(num_followed_BT1)
        follow_BT1 = scores_BT2[..., 1:].masked_fill(num_followed_BT1 == 0, -torch.inf)
        gates_BT3 = torch.cat([own_BT1, scores_BT2[..., :1], follow_BT1], dim=-1).softmax(dim=-1)
        own_BT1, say_BT1, follow_BT1 = (gates_BT3[..., i : i + 1] for i in range(3))
        tiny = torch.finfo(said_TN.dtype).tiny
        shares_BTN = say_BT1 * (said_TN / said_TN.sum(dim=-1, keepdim=True))
        shares_BTN = shares_BTN + follow_BT1 * (followed_BTN / num_followed_BT1.clamp_min(tiny))
        return Copied(own_BT1, shares_BTN, text_BN)


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
