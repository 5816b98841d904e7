"""The context network against the formula of its layers, computed naively."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.context_network import ContextLayer, ContextNetwork


def make_network(
    vocab_size: int = 11,
    context_dim: int = 8,
    embed_dim: int = 5,
    num_layers: int = 2,
    update_scale: float = 0.5,
) -> ContextNetwork:
    network = ContextNetwork(
        vocab_size=vocab_size,
        context_dim=context_dim,
        embed_dim=embed_dim,
        num_layers=num_layers,
        update_scale=update_scale,
    ).double()
    for layer in network.layers:
        torch.nn.init.normal_(layer.bias)
    return network


def normalise(vectors: Tensor) -> Tensor:
    centred = vectors - vectors.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()


def naive_layer(
    layer: ContextLayer, contexts: Tensor, embeddings: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    weight = torch.cat([layer.context_weight, layer.token_weight], dim=1)
    both = torch.cat([contexts, embeddings], dim=-1)
    hidden = (both @ weight.T + layer.bias).clamp_min(0)
    context_dim = contexts.shape[-1]
    contexts = normalise(contexts + scale * hidden[..., :context_dim])
    if hidden.shape[-1] == context_dim:
        return contexts, embeddings
    return contexts, normalise(embeddings + hidden[..., context_dim:])


@settings(max_examples=15, deadline=None)
@given(
    context_dim=st.integers(2, 9),
    embed_dim=st.integers(2, 9),
    num_layers=st.integers(1, 3),
    update_scale=st.sampled_from([0.25, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_network_is_the_formula(
    context_dim: int, embed_dim: int, num_layers: int, update_scale: float, seed: int
) -> None:
    torch.manual_seed(seed)
    network = make_network(
        context_dim=context_dim,
        embed_dim=embed_dim,
        num_layers=num_layers,
        update_scale=update_scale,
    )
    contexts = torch.randn(3, 4, context_dim, dtype=torch.float64)
    embeddings = torch.randn(3, 4, embed_dim, dtype=torch.float64)
    expected, tokens = contexts, embeddings
    for layer in network.layers:
        expected, tokens = naive_layer(layer, expected, tokens, update_scale)
    torch.testing.assert_close(network(contexts, embeddings), expected)


def test_layer_updates_both_inputs_unless_it_is_last() -> None:
    inner, last = make_network(num_layers=2).layers
    contexts = torch.randn(4, 8, dtype=torch.float64)
    embeddings = torch.randn(4, 5, dtype=torch.float64)
    next_contexts, next_embeddings = inner(contexts, embeddings)
    expected = naive_layer(inner, contexts, embeddings, 0.5)
    torch.testing.assert_close((next_contexts, next_embeddings), expected)
    assert last(contexts, embeddings)[1] is embeddings
    assert last.bias.numel() == 8
    assert inner.bias.numel() == 13


def test_weights_are_those_of_the_whole_matrix() -> None:
    network = make_network(context_dim=8, embed_dim=5, num_layers=3)
    weights = [
        layer.context_weight.numel() + layer.token_weight.numel() for layer in network.layers
    ]
    assert weights == [13 * 13, 13 * 13, 8 * 13]


def test_embedding_is_the_normalised_row() -> None:
    network = make_network()
    tokens = torch.tensor([[0, 3, 10], [3, 3, 1]])
    expected = normalise(network.embedding.weight[tokens])
    torch.testing.assert_close(network.embed(tokens), expected)


def test_every_context_has_mean_0_and_variance_1() -> None:
    network = make_network(context_dim=64)
    contexts = 30 * torch.randn(7, 64, dtype=torch.float64)
    output = network(contexts, torch.randn(7, 5, dtype=torch.float64))
    torch.testing.assert_close(output.mean(dim=-1), torch.zeros(7, dtype=torch.float64))
    variance = output.var(dim=-1, correction=0)
    torch.testing.assert_close(variance, torch.ones_like(variance), atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 3, 4)])
def test_leading_dimensions_are_free(shape: tuple[int, ...]) -> None:
    network = make_network()
    contexts = torch.randn(*shape, 8, dtype=torch.float64)
    embeddings = torch.randn(*shape, 5, dtype=torch.float64)
    output = network(contexts, embeddings)
    assert output.shape == contexts.shape
    flat = network(contexts.reshape(-1, 8), embeddings.reshape(-1, 5))
    torch.testing.assert_close(output.reshape(-1, 8), flat)


def test_output_depends_on_context_and_token() -> None:
    network = make_network()
    contexts = torch.randn(4, 8, dtype=torch.float64)
    embeddings = torch.randn(4, 5, dtype=torch.float64)
    output = network(contexts, embeddings)
    assert (output - network(contexts.flip(0), embeddings)).abs().max() > 0.1
    assert (output - network(contexts, embeddings.flip(0))).abs().max() > 0.1


def test_every_parameter_gets_a_gradient() -> None:
    network = make_network(vocab_size=3, num_layers=3)
    embeddings = network.embed(torch.tensor([0, 1, 2]))
    weights = torch.randn(3, 8, dtype=torch.float64)
    (network(torch.randn(3, 8, dtype=torch.float64), embeddings) * weights).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
