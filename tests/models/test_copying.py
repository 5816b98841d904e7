"""Copying: what the text has said lately, against its formula in loops."""

import math

import pytest
import torch
from torch import Tensor

import models.linear_cross_entropy
from models.copying import Copying
from models.token_head import Recall, TokenHead

V, D, C = 7, 5, 3


def make_copying(window: int) -> Copying:
    torch.manual_seed(0)
    copying = Copying(feature_dim=D, window=window).double()
    for parameter in copying.parameters():
        torch.nn.init.normal_(parameter)
    return copying


def make_head(window: int) -> TokenHead:
    torch.manual_seed(0)
    head = TokenHead(
        vocab_size=V, context_dim=C, embed_dim=D, hidden_dim=6, dropout=0.0, context_scale=1.0,
        prior_count=0.0, recall=Recall(copy_window=window),
    )  # fmt: skip
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    return head


def by_hand(copying: Copying, own_V: Tensor, features_D: Tensor, text: list[int]) -> list[float]:
    """The docstring's formula, for the last position of a text."""
    now = len(text) - 1
    decays = torch.sigmoid(copying.decay_logit).tolist()
    said, followed = [0.0] * V, [0.0] * V
    for s in range(max(0, now - copying.window + 1), now + 1):
        said[text[s]] += decays[0] ** (now - s)
        if s > 0 and text[s - 1] == text[now]:
            followed[text[s]] += decays[1] ** (now - s)
    scores = [0.0, *copying.gates(features_D).tolist()]
    gates = [math.exp(score) for score in scores]
    if sum(followed) == 0:
        gates[2] = 0.0
    return [
        (gates[0] * own + gates[1] * a / sum(said) + gates[2] * b / (sum(followed) or 1))
        / sum(gates)
        for own, a, b in zip(own_V.tolist(), said, followed, strict=True)
    ]


@pytest.mark.parametrize("window", [1, 4, 100])
@pytest.mark.parametrize("num_earlier", [0, 6])
def test_every_position_is_the_formula(window: int, num_earlier: int) -> None:
    copying = make_copying(window)
    text_BN = torch.randint(V, (2, 9 + num_earlier))
    logits, features = torch.randn(2, 9, V).double(), torch.randn(2, 9, D).double()
    copied = copying(features, text_BN[:, num_earlier:], text_BN[:, :num_earlier])
    found = copied.added_to(logits).exp()
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(2, 9).double())
    answers = torch.randint(V, (2, 9))
    own_nats = -logits.log_softmax(dim=-1).gather(-1, answers.unsqueeze(-1)).squeeze(-1)
    nats = copied.answer_nats(own_nats, answers)
    for row in range(2):
        for position in range(9):
            text = text_BN[row, : num_earlier + position + 1].tolist()
            own = logits[row, position].softmax(dim=-1)
            expected = by_hand(copying, own, features[row, position], text)
            assert found[row, position].tolist() == pytest.approx(expected)
            answer = expected[int(answers[row, position])]
            assert nats[row, position].item() == pytest.approx(-math.log(answer))


@pytest.mark.parametrize("num_positions", [1, 5])
def test_no_gradient_is_lost_where_nothing_can_be_copied(num_positions: int) -> None:
    """Of different tokens none followed another before, and a first one has nothing before it."""
    copying = make_copying(4)
    features = torch.randn(1, num_positions, D).double().requires_grad_()
    own_nats = torch.rand(1, num_positions).double()
    answers = torch.full((1, num_positions), V - 1)
    copied = copying(features, torch.arange(num_positions).unsqueeze(0))
    copied.answer_nats(own_nats, answers).sum().backward()
    for tensor in (features, *copying.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


def test_a_head_that_copies_sees_no_later_token() -> None:
    head = make_head(4)
    contexts, tokens = torch.randn(2, 9, C), torch.randint(V, (2, 9))
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % V
    before, after = head(contexts, tokens), head(contexts, changed)
    assert torch.equal(before[:, :5], after[:, :5])
    # Copied from as long as the window reaches, and no further.
    assert (before[:, 8] - after[:, 8]).abs().max() > 1e-3
    far = make_head(2)
    assert torch.equal(far(contexts, tokens)[:, 8], far(contexts, changed)[:, 8])


@pytest.mark.parametrize("num_rows", [1, 2, 5])
def test_loss_in_parts_is_the_cross_entropy_of_the_logits(
    monkeypatch: pytest.MonkeyPatch, num_rows: int
) -> None:
    head = make_head(4)
    contexts, tokens = torch.randn(5, 6, C), torch.randint(V, (5, 6))
    targets = torch.randint(V, (5, 6))
    logits = head(contexts, tokens).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, targets.flatten())
    parameters = list(head.parameters())
    expected_gradients = torch.autograd.grad(expected, parameters)
    monkeypatch.setattr(models.linear_cross_entropy, "LARGEST_LOGITS", 4 * V * 6 * num_rows)
    loss, nats = head.smoothed_loss(contexts, tokens, targets, label_smoothing=0.0)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(nats, expected)
    gradients = torch.autograd.grad(loss, parameters)
    torch.testing.assert_close(gradients, expected_gradients)


def test_copying_learns_that_texts_repeat_themselves() -> None:
    """Rows of random tokens, said twice: after the first time only copying can know the second."""
    head = make_head(16)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    contexts = torch.zeros(32, 11, C)
    for _ in range(150):
        said = torch.stack([torch.randperm(V)[:6] for _ in range(32)])
        text = torch.cat([said, said], dim=1)
        loss = head.loss(contexts, text[:, :-1], text[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    nats = torch.nn.functional.cross_entropy(
        head(contexts, text[:, :-1])[:, 6:].flatten(0, 1), text[:, 7:].flatten()
    )
    assert nats.item() < 0.5 < math.log(V)
