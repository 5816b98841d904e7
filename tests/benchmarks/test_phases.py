"""What a network knows in each state, and that training on it leaves it as it is."""

import dataclasses

import torch

from benchmarks.phases import Phase1, make_phase1, train_phase2
from config import Config
from datamodules.token_datamodule import TokenDataModule


def test_a_state_has_what_it_says(tiny_config: Config, tiny_data: TokenDataModule) -> None:
    # So many dimensions that frequent tokens have narrower gates.
    config = dataclasses.replace(tiny_config, context_dim=64)
    drawn, read, trained = (
        make_phase1(config, tiny_data, state) for state in ("untrained", "read", "trained")
    )

    def differ(one: Phase1, other: Phase1, part: str) -> bool:
        weights = (made.module.network.get_submodule(part).parameters() for made in (one, other))
        return any(not torch.equal(*pair) for pair in zip(*weights, strict=True))

    for made in (drawn, read):
        assert made.module.network.gates().unique().numel() > 1  # type: ignore[operator]  # gated
        assert (made.figures, made.num_sweeps) == ({}, 0)
    assert not differ(drawn, read, "layers")
    assert differ(drawn, read, "embedding")
    assert differ(read, trained, "layers")
    assert not differ(read, trained, "embedding")
    assert trained.num_sweeps == config.phase1_max_epochs
    assert trained.module.contexts is None


def test_phase_2_leaves_phase_1_as_it_was(tiny_config: Config, tiny_data: TokenDataModule) -> None:
    phase1 = make_phase1(tiny_config, tiny_data, "untrained").module
    before = {name: weight.clone() for name, weight in phase1.network.state_dict().items()}
    config = dataclasses.replace(tiny_config, freeze_context=False, context_learning_rate=0.1)
    module, val_ppl = train_phase2(phase1, tiny_data, config)
    assert 1 < val_ppl < tiny_data.vocab_size
    assert phase1.config == tiny_config
    assert module.config == config
    for name, weight in phase1.network.state_dict().items():
        assert torch.equal(weight, before[name])
    changed = module.network.get_parameter("layers.0.token_weight")
    assert not torch.equal(changed, before["layers.0.token_weight"])
