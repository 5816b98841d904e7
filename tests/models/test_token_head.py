"""The token head: position-wise, tied, and a unigram model where it knows nothing."""

import pytest
import torch
from torch import Tensor

import models.linear_cross_entropy
from models.attention import AttentionBlock
from models.recurrence import RecurrentBlock
from models.token_head import Recall, TokenHead

V, C, D, H = 19, 7, 5, 11


def make_head(
    dropout: float = 0.0, *, context_scale: float = 1.0, prior_count: float = 0.0
) -> TokenHead:
    """A head whose parameters are all random, as after training."""
    torch.manual_seed(0)
    head = TokenHead(
        vocab_size=V, context_dim=C, embed_dim=D, hidden_dim=H, dropout=dropout,
        context_scale=context_scale, prior_count=prior_count,
    )  # fmt: skip
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    return head


def features(head: TokenHead, contexts: Tensor, tokens: Tensor) -> Tensor:
    return head.features(head.read(contexts, tokens).output, tokens)


def inputs(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(*shape, C), torch.randint(V, shape)


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
def test_shapes(shape: tuple[int, ...]) -> None:
    head = make_head()
    assert head(*inputs(*shape)).shape == (*shape, V)
    assert features(head, *inputs(*shape)).shape == (*shape, D)


def test_loss_is_the_cross_entropy_of_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one piece, and in parts of three tokens."""
    head = make_head()
    contexts, tokens = inputs(2, 5)
    targets = torch.randint(V, (2, 5))
    expected = torch.nn.functional.cross_entropy(
        head(contexts, tokens).flatten(0, 1), targets.flatten()
    )
    torch.testing.assert_close(head.loss(contexts, tokens, targets), expected)
    monkeypatch.setattr(models.linear_cross_entropy, "LARGEST_LOGITS", 4 * V * 3)
    torch.testing.assert_close(head.loss(contexts, tokens, targets), expected)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
@pytest.mark.parametrize("part_size", [100, 3])
def test_smoothed_loss_is_torchs_own_and_nats_are_not_smoothed(
    monkeypatch: pytest.MonkeyPatch, label_smoothing: float, part_size: int
) -> None:
    head = make_head()
    contexts, tokens = inputs(2, 5)
    targets = torch.randint(V, (2, 5))
    logits = head(contexts, tokens).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(
        logits, targets.flatten(), label_smoothing=label_smoothing
    )
    expected_gradients = torch.autograd.grad(expected, list(head.parameters()))
    monkeypatch.setattr(models.linear_cross_entropy, "LARGEST_LOGITS", 4 * V * part_size)
    loss, nats = head.smoothed_loss(contexts, tokens, targets, label_smoothing)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(nats, head.loss(contexts, tokens, targets))
    gradients = torch.autograd.grad(loss, list(head.parameters()))
    torch.testing.assert_close(gradients, expected_gradients)


@pytest.mark.parametrize("position", [0, 2, 4])
def test_logits_depend_on_their_own_position_alone(position: int) -> None:
    head = make_head().eval()
    contexts, tokens = inputs(2, 5)
    before = head(contexts, tokens)
    others = torch.arange(5) != position
    for changed in (
        head(contexts.index_fill(1, torch.tensor([position]), 3.0), tokens),
        head(
            contexts,
            tokens.index_copy(1, torch.tensor([position]), (tokens[:, [position]] + 1) % V),
        ),
    ):
        torch.testing.assert_close(changed[:, others], before[:, others])
        assert (changed[:, position] - before[:, position]).abs().max() > 1e-3


@pytest.mark.parametrize("counts", [[0] * V, list(range(V)), [1_000_000, *[0] * (V - 1)]])
def test_no_features_give_the_unigram_distribution(counts: list[int]) -> None:
    head = make_head()
    torch.nn.init.zeros_(head.norm.weight)
    torch.nn.init.zeros_(head.norm.bias)
    head.set_token_counts(torch.tensor(counts))
    contexts, tokens = inputs(4)
    assert features(head, contexts, tokens).count_nonzero() == 0
    expected = torch.tensor([(count + 1) / (sum(counts) + V) for count in counts])
    probabilities = head(contexts, tokens).softmax(dim=-1)
    torch.testing.assert_close(probabilities, expected.expand(4, V))


def test_unigram_stays_trainable() -> None:
    head = make_head()
    head.set_token_counts(torch.arange(V))
    assert head.output_bias.requires_grad
    assert head.output_bias.is_leaf


def test_embedding_and_output_are_one_parameter() -> None:
    head = make_head().eval()
    matrices = [p for p in head.parameters() if tuple(p.shape) == (V, D)]
    assert len(matrices) == 1
    num_others = V + H * (C + D) + H + D * H + D + 2 * D
    assert sum(p.numel() for p in head.parameters()) == V * D + num_others
    contexts = torch.randn(3, C)
    tokens = torch.zeros(3, dtype=torch.long)
    before = head(contexts, tokens)
    with torch.no_grad():
        head.embedding.weight[4] += torch.randn(D)
    changed = (head(contexts, tokens) - before).abs().amax(dim=0) > 1e-4
    assert changed.nonzero().flatten().tolist() == [4]


def test_logits_are_features_times_embeddings_and_bias() -> None:
    head = make_head().eval()
    head.set_token_counts(torch.arange(V))
    contexts, tokens = inputs(3)
    read = features(head, contexts, tokens)
    expected = read @ head.embedding.weight.T + head.output_bias
    torch.testing.assert_close(head(contexts, tokens), expected)


def test_dropout_acts_in_training_alone() -> None:
    contexts, tokens = inputs(6)
    head = make_head(dropout=0.5)
    assert not torch.equal(head(contexts, tokens), head(contexts, tokens))
    assert (features(head, contexts, tokens) == 0).float().mean() > 0.2
    head.eval()
    torch.testing.assert_close(head(contexts, tokens), make_head(0.0)(contexts, tokens))


def test_every_parameter_gets_a_gradient() -> None:
    head = make_head()
    logits = head(*inputs(8))
    torch.nn.functional.cross_entropy(logits, torch.randint(V, (8,))).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_scale_is_that_of_the_contexts_it_reads() -> None:
    contexts, tokens = inputs(6)
    scaled = make_head(context_scale=0.25).eval()
    torch.testing.assert_close(
        scaled(contexts, tokens), make_head().eval()(0.25 * contexts, tokens)
    )


def test_what_is_said_after_a_token_counts_by_how_often_it_was_seen() -> None:
    """After a token without occurrences frequencies are left; after 2 of them, half of the rest."""
    trusting, doubting = make_head().eval(), make_head(prior_count=2.0).eval()
    counts = torch.arange(V)
    for head in (trusting, doubting):
        head.set_token_counts(counts)
    contexts, tokens = torch.randn(V, C), torch.arange(V)
    share = (counts / (counts + 2)).unsqueeze(-1)
    said = trusting(contexts, tokens) - trusting.output_bias
    torch.testing.assert_close(doubting(contexts, tokens), share * said + doubting.output_bias)
    assert features(doubting, contexts, tokens)[0].count_nonzero() == 0


@pytest.mark.parametrize(
    ("recall", "expected"),
    [
        (Recall(), ""), (Recall(attention_layers=3), ""), (Recall(attention_window=4), "A"),
        (Recall(recurrent_layers=2), "RR"), (Recall(0, 4, 1, recurrent_layers=2), "RAR"),
        (Recall(0, 4, 3, recurrent_layers=1), "RAAA"), (Recall(0, 4, 2, recurrent_layers=2), "RARA"),
    ],
)  # fmt: skip
def test_recurrences_and_attention_take_turns(recall: Recall, expected: str) -> None:
    made = TokenHead(
        vocab_size=V, context_dim=C, embed_dim=D, hidden_dim=H, dropout=0.0, context_scale=1.0,
        prior_count=0.0, recall=recall._replace(feed_forward_factor=3),
    )  # fmt: skip
    kinds = {RecurrentBlock: "R", AttentionBlock: "A"}
    blocks = list(made.attention.blocks)
    assert "".join(kinds[type(block)] for block in blocks) == expected  # type: ignore[index]
    assert {block.inner.out_features for block in blocks} <= {3 * D}
