"""Phase 2 in a real Trainer."""

import dataclasses
import math

import lightning as L
import pytest
import torch

from config import Config, Precision
from datamodules.token_datamodule import TokenBatch, TokenDataModule
from lightning_modules import metric_names as names
from lightning_modules.fixed_point_module import FixedPointModule
from lightning_modules.token_prediction_module import TokenPredictionModule
from tuning.training import NO_LOGGER, fit_phase


def make(config: Config, data: TokenDataModule) -> TokenPredictionModule:
    L.seed_everything(config.random_seed, verbose=False)
    phase1 = FixedPointModule(config, data.vocab_size)
    return TokenPredictionModule.from_phase1(phase1, data.vocab_size)


def fit(config: Config, data: TokenDataModule) -> tuple[TokenPredictionModule, L.Trainer]:
    module = make(config, data)
    trainer = fit_phase(module, data, config=config, num_epochs=2, logger=NO_LOGGER, callbacks=[])
    return module, trainer


@pytest.mark.parametrize(
    ("copy_window", "attention_window", "attention_layers", "convolution_kernel"),
    [(0, 0, 1, 0), (6, 0, 2, 0), (0, 5, 1, 0), (6, 40, 2, 3), (0, 0, 1, 2)],
)
def test_logits_are_causal(
    tiny_config: Config, tiny_data: TokenDataModule,
    copy_window: int, attention_window: int, attention_layers: int, convolution_kernel: int,
) -> None:  # fmt: skip
    config = dataclasses.replace(
        tiny_config, copy_window=copy_window, attention_window=attention_window,
        attention_layers=attention_layers, convolution_kernel=convolution_kernel,
        recurrent_layers=attention_layers // 2,
    )  # fmt: skip
    module, _ = fit(config, tiny_data)
    module.eval()
    tokens = tiny_data.val_rows.tokens
    changed = tokens.clone()
    changed[:, 10] = (changed[:, 10] + 1) % tiny_data.vocab_size
    with torch.no_grad():
        before, after = module(tokens), module(changed)
    # How many sweeps solve a text hangs on all of it: up to rounding errors.
    torch.testing.assert_close(before[:, :10], after[:, :10], rtol=1e-5, atol=1e-5)
    assert (before[:, 10] - after[:, 10]).abs().max() > 1e-2
    assert (before[:, 11] - after[:, 11]).abs().max() > 1e-3


def test_perplexity_against_a_unigram_by_hand(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    """A head that says nothing but its bias must have the unigram's perplexity on later tokens."""
    module = make(tiny_config, tiny_data)
    module.head.set_token_counts(tiny_data.token_counts())
    torch.nn.init.zeros_(module.head.norm.weight)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.validate(module, datamodule=tiny_data, verbose=False)
    counts = tiny_data.token_counts().double() + 1
    log_shares = (counts / counts.sum()).log()
    predicted = tiny_data.val_rows.tokens[:, 1:]
    expected = math.exp(-log_shares[predicted].mean().item())
    assert float(trainer.callback_metrics[names.VAL_PPL]) == pytest.approx(expected, rel=1e-4)


def test_perplexity_is_of_all_tokens_not_of_batch_means(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    """Batches of 3 and 1 rows: the mean of the two means would weigh the last row three times."""
    module = make(tiny_config, tiny_data)
    module.on_fit_start = lambda: None  # type: ignore[method-assign]  # no contexts are kept
    tokens = tiny_data.val_rows.tokens.clone()
    tokens[3] = 7
    module.eval()
    with torch.no_grad():
        for rows in ((0, 1, 2), (3,)):
            index = torch.tensor(rows)
            module.validation_step(TokenBatch(tokens[index], index), 0)
        logits = module(tokens)[:, :-1]
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert float(module.val_mean_loss.compute()) == pytest.approx(float(expected), rel=1e-5)


def test_frozen_contexts_are_computed_once(
    tiny_config: Config, tiny_data: TokenDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = TokenPredictionModule._exact_contexts

    def counted(self: TokenPredictionModule, tokens: torch.Tensor) -> torch.Tensor:
        calls.append(len(tokens))
        return original(self, tokens)

    monkeypatch.setattr(TokenPredictionModule, "_exact_contexts", counted)
    module, _ = fit(tiny_config, tiny_data)
    assert sum(calls) == len(tiny_data.train_rows) + len(tiny_data.val_rows)
    assert all(not p.requires_grad for p in module.network.parameters())


def test_frozen_network_keeps_its_weights(tiny_config: Config, tiny_data: TokenDataModule) -> None:
    before = make(tiny_config, tiny_data).network.state_dict()
    after = fit(tiny_config, tiny_data)[0].network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_unfrozen_gradients_reach_network_and_embedding(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    config = dataclasses.replace(tiny_config, freeze_context=False)
    before = dict(make(config, tiny_data).network.named_parameters())
    after = dict(fit(config, tiny_data)[0].network.named_parameters())
    assert [name for name in before if torch.equal(before[name], after[name])] == []


@pytest.mark.parametrize("head_embed_dim", [24, 16, 8])
def test_a_shared_embedding_starts_from_phase_1(
    tiny_config: Config, tiny_data: TokenDataModule, head_embed_dim: int
) -> None:
    """The same contexts where the head has as many entries as F reads or more; else close ones."""
    own = make(dataclasses.replace(tiny_config, freeze_context=True, embed_dim=16), tiny_data)
    config = dataclasses.replace(
        tiny_config, freeze_context=False, embed_dim=16, head_embed_dim=head_embed_dim
    )
    shared = make(config, tiny_data)
    assert "network.embedding.projection.weight" in shared.state_dict()
    assert "network.embedding.weight" not in shared.state_dict()
    tokens = tiny_data.val_rows.tokens
    expected, found = own.network.embed(tokens), shared.network.embed(tokens)
    if head_embed_dim >= 16:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    else:
        assert torch.nn.functional.cosine_similarity(found, expected, dim=-1).mean() > 0.5
    size = shared.head.embedding.weight.std() / 0.02
    assert 0.7 < size < 1.4, "rows that the head reads have about unit variance"


@pytest.mark.parametrize(
    ("freeze_context", "share_embedding"), [(True, True), (True, False), (False, False)]
)
def test_a_head_of_its_own_starts_from_phase_1_where_asked(
    tiny_config: Config, tiny_data: TokenDataModule, freeze_context: bool, share_embedding: bool
) -> None:
    """Tokens that are alike to F are alike to the head; F's own embedding stays its own."""
    config = dataclasses.replace(
        tiny_config, embed_dim=12, head_embed_dim=12,
        freeze_context=freeze_context, share_embedding=share_embedding,
    )  # fmt: skip
    without, module = (
        make(dataclasses.replace(config, start_embedding=start), tiny_data)
        for start in (False, True)
    )
    tokens = tiny_data.val_rows.tokens
    embedded = module.network.embed(tokens)
    assert torch.equal(embedded, without.network.embed(tokens))
    alike, found, random = (
        torch.nn.functional.cosine_similarity(rows[:, :-1], rows[:, 1:], dim=-1)
        for rows in (embedded, module.head.embedding(tokens), without.head.embedding(tokens))
    )
    torch.testing.assert_close(found, alike, rtol=1e-4, atol=1e-5)
    assert (random - alike).abs().mean() > 0.1
    assert 0.7 < module.head.embedding.weight.std() / 0.02 < 1.4
    with torch.no_grad():
        module.head.embedding.weight.zero_()
    assert torch.equal(module.network.embed(tokens), embedded)


def test_a_shared_embedding_learns_through_the_contexts(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    """From a head that reads contexts alone, gradients reach the rows of earlier tokens."""
    module = make(dataclasses.replace(tiny_config, freeze_context=False), tiny_data)
    tokens = tiny_data.train_rows.tokens[:1]
    contexts = module._with_gradient(module._exact_contexts(tokens), tokens)
    contexts[0, 3].square().mul(torch.arange(contexts.shape[-1])).sum().backward()
    gradient = module.head.embedding.weight.grad
    assert gradient is not None
    assert all(gradient[token].abs().max() > 0 for token in tokens[0, :4])
    unread = sorted(set(range(tiny_data.vocab_size)) - set(tokens[0, :4].tolist()))
    assert gradient[unread].abs().max() == 0


def test_a_checkpoint_from_before_embeddings_were_shared(
    tiny_config: Config, tiny_data: TokenDataModule, added_since_sharing: tuple[str, ...]
) -> None:
    config = dataclasses.replace(
        tiny_config, freeze_context=False, share_embedding=False, query_key_norm=False
    )
    old = make(config, tiny_data)
    record = dataclasses.asdict(config)
    for name in added_since_sharing:
        del record[name]
    restored = TokenPredictionModule(record, tiny_data.vocab_size)
    assert restored.config == config
    restored.load_state_dict(old.state_dict())
    tokens = tiny_data.val_rows.tokens
    torch.testing.assert_close(restored.eval()(tokens), old.eval()(tokens), rtol=0, atol=0)


def test_learning_lowers_the_perplexity(tiny_config: Config, tiny_data: TokenDataModule) -> None:
    config = dataclasses.replace(tiny_config, num_samples=64, phase2_learning_rate=0.01)
    data = TokenDataModule(config)
    data.setup()
    module = make(config, data)
    losses = []

    class Record(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            losses.append(float(trainer.callback_metrics[names.TRAIN_LOSS]))

    fit_phase(module, data, config=config, num_epochs=4, logger=NO_LOGGER, callbacks=[Record()])
    assert losses[-1] < losses[0] - 0.1


def test_label_smoothing_changes_what_is_learnt_and_not_what_is_measured(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    """`train_loss` stays comparable with `val_loss`: nats of the answers alone."""
    still = dataclasses.replace(tiny_config, dropout=0.0, phase2_learning_rate=1e-12)
    losses = [
        float(fit(config, tiny_data)[1].callback_metrics[names.TRAIN_LOSS])
        for config in (still, dataclasses.replace(still, label_smoothing=0.5))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    weights = [
        fit(dataclasses.replace(tiny_config, label_smoothing=share), tiny_data)[0].head.state_dict()
        for share in (0.0, 0.5)
    ]
    assert (weights[0]["output_bias"] - weights[1]["output_bias"]).abs().max() > 1e-3


@pytest.mark.parametrize("freeze_context", [True, False])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_all_that_recalls_is_trained_in_every_precision(
    tiny_config: Config, tiny_data: TokenDataModule, precision: Precision, freeze_context: bool
) -> None:
    config = dataclasses.replace(
        tiny_config, copy_window=6, attention_window=6, attention_layers=2, convolution_kernel=2,
        precision=precision, freeze_context=freeze_context,
    )  # fmt: skip
    module, trainer = fit(config, tiny_data)
    trained, untrained = module.head.state_dict(), make(config, tiny_data).head.state_dict()
    parts = ("copying.", "attention.", "convolution.")
    recall = [name for name in untrained if name.startswith(parts)]
    assert len(recall) == 3 + 2 * 12 + 1
    for name in recall:
        assert (trained[name] - untrained[name]).abs().max() > 1e-4, name
    assert math.isfinite(float(trainer.callback_metrics[names.VAL_PPL]))


def test_same_seed_same_perplexity_to_the_last_bit(
    tiny_config: Config, tiny_data: TokenDataModule
) -> None:
    first, again = (fit(tiny_config, tiny_data)[1].callback_metrics for _ in range(2))
    other = fit(dataclasses.replace(tiny_config, random_seed=7), tiny_data)[1].callback_metrics
    assert first[names.VAL_PPL].item() == again[names.VAL_PPL].item()
    assert first[names.VAL_PPL].item() != other[names.VAL_PPL].item()
