"""A scan that is recorded and one that is not are the same."""

import dataclasses

import pytest
import torch
from torch import Tensor

from config import Config
from lightning_modules.settings import context_network
from models.scan import Recording, scan, step_by_step

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def network_and_text(num_positions: int, device: str = "cpu"):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    config = dataclasses.replace(Config(), context_dim=24, embed_dim=12)
    network = context_network(config, 50).to(device).requires_grad_(False)
    embeddings = network.embed(torch.randint(50, (3, num_positions), device=device))
    return network, embeddings, torch.randn(3, 24, device=device)


def test_without_a_gpu_the_scan_is_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.scan.Recording", None)
    network, embeddings, initial = network_and_text(70)
    contexts = scan(network, embeddings, initial)
    context = initial
    for position in range(70):
        context = network(context, embeddings[:, position])
        assert torch.equal(contexts[:, position], context)


class FakeGraph:
    """Does what the recording did, on the same memory, when it is replayed."""

    def __init__(self, recording: Recording, network: object) -> None:
        self.recording, self.network = recording, network

    def replay(self) -> None:
        recording = self.recording
        recording._contexts.copy_(
            step_by_step(self.network, recording._embeddings, recording._initial)  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("num_positions", [1, 31, 32, 33, 64, 100])
def test_a_text_of_any_length_is_replayed_part_by_part(num_positions: int) -> None:
    network, embeddings, initial = network_and_text(num_positions)
    recording = Recording.__new__(Recording)
    recording._embeddings = torch.full((3, 32, 12), 7.0)
    recording._initial = torch.full((3, 24), 7.0)
    recording._contexts = torch.full((3, 32, 24), 7.0)
    recording._graph = FakeGraph(recording, network)  # type: ignore[assignment]
    expected = step_by_step(network, embeddings, initial)
    for _ in range(2):
        assert torch.equal(recording.replay(embeddings, initial), expected)


def test_what_is_recorded_in_inference_mode_is_not_replayed_outside_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its memory could not be written to, as validation and a notebook would find."""

    class OnMemory(Recording):
        def __init__(self, steps: object, embeddings: Tensor, initial: Tensor) -> None:
            self._embeddings = torch.zeros(len(embeddings), 32, embeddings.shape[2])
            self._initial = torch.zeros_like(initial)
            self._contexts = torch.zeros(len(embeddings), 32, initial.shape[1])
            self._graph = FakeGraph(self, network)  # type: ignore[assignment]

    monkeypatch.setattr("models.scan.Recording", OnMemory)
    monkeypatch.setattr("models.scan._can_record", lambda _: True)
    network, embeddings, initial = network_and_text(40)
    expected = step_by_step(network, embeddings, initial)
    with torch.inference_mode():
        inferred = scan(network, embeddings, initial)
    with torch.no_grad():
        again = scan(network, embeddings, initial)
    assert torch.equal(inferred, expected)
    assert torch.equal(again, expected)


@needs_gpu
@pytest.mark.parametrize("num_positions", [16, 100])
@pytest.mark.parametrize("bf16", [False, True])
@torch.no_grad()
def test_a_recording_follows_weights_and_texts(num_positions: int, bf16: bool) -> None:
    network, embeddings, initial = network_and_text(num_positions, "cuda")
    for change in (0.0, 0.1, -0.2):
        for weight in network.parameters():
            weight.add_(change * weight)
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            for text in (embeddings, embeddings.flip(1), embeddings[:2]):
                start = initial[: len(text)]
                expected = step_by_step(network, text, start)
                torch.testing.assert_close(scan(network, text, start), expected)


@needs_gpu
@torch.no_grad()
def test_weights_that_moved_are_recorded_anew() -> None:
    network, embeddings, initial = network_and_text(40, "cuda")
    scan(network, embeddings, initial)
    for weight in network.parameters():
        weight.data = torch.randn_like(weight.data)
    expected = step_by_step(network, embeddings, initial)
    torch.testing.assert_close(scan(network, embeddings, initial), expected)


@needs_gpu
def test_with_a_gradient_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.scan.Recording", None)
    network, embeddings, initial = network_and_text(40, "cuda")
    contexts = scan(network, embeddings.requires_grad_(), initial)
    assert contexts.requires_grad
