"""All models of the comparison on one number of training tokens."""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import torch
from torch import Tensor

from benchmarks.baselines.candidates import Candidate, Task, candidate
from benchmarks.baselines.generation import Generator, milliseconds_a_token
from benchmarks.baselines.kneser_ney import KneserNey, KneserNeyGenerator
from benchmarks.baselines.options import KNESER_NEY, Given, Options
from benchmarks.baselines.records import Cell, Records, Settings
from benchmarks.baselines.sizing import count_parameters
from benchmarks.baselines.training import mean_loss
from benchmarks.baselines.tuning_study import tune
from benchmarks.devices import device_name
from config import InputError
from datamodules.token_datamodule import TokenDataModule


class Comparison:
    """All models on one number of training tokens."""

    def __init__(
        self,
        options: Options,
        given: Given,
        records: Records,
        device: torch.device,
        tokens: int,
    ) -> None:
        self.options, self.given = options, given
        self.records, self.device = records, device
        self.config = options.config(num_samples=tokens // options.max_seq_length)
        self.data = TokenDataModule(self.config)
        self.data.setup()
        self.num_tokens = self.data.train_rows.tokens.numel()
        if len(self.data.test_rows) == 0:
            raise InputError(
                f"--corpus {options.corpus!r} has no test sequence of {options.max_seq_length} "
                "tokens; it must be larger, or --max-seq-length smaller."
            )
        num_test = self.data.test_rows.tokens.numel()
        print(f"{self.data.describe()}, test {num_test:,} tokens", flush=True)
        if self.num_tokens < tokens - tokens % options.max_seq_length:
            print(f"The corpus has fewer than {tokens:,} training tokens; all are used", flush=True)

    def run(self) -> None:
        """Every cell that is not in the records yet."""
        for model in dict.fromkeys(self.options.models):
            if model == KNESER_NEY:
                self._kneser_ney()
                continue
            for target in dict.fromkeys(self.options.parameters):
                self._trained(model, target)

    def _kneser_ney(self) -> None:
        settings = self._data_settings(KNESER_NEY)
        if self.records.find(settings) is not None:
            return
        start = time.monotonic()
        train_rows = self.data.train_rows.tokens.numpy()
        model = KneserNey(train_rows, vocab_size=self.data.vocab_size)
        seconds = time.monotonic() - start
        val_loss, test_loss = (
            -float(np.log(model.next_probabilities(rows.tokens.numpy())).mean())
            for rows in (self.data.val_rows, self.data.test_rows)
        )
        trained = {
            "parameters": model.num_ngrams, "window": model.order - 1, "val_loss": val_loss,
            "seconds": seconds, "tokens_per_second": self.num_tokens / seconds,
        }  # fmt: skip
        self._store(settings, test_loss, KneserNeyGenerator(model), trained)

    def _trained(self, model: str, target: float) -> None:
        common = {
            **self._data_settings(model), "parameters": target, "trials": self.options.trials,
            "epochs": self.options.epochs, "patience": self.options.patience,
            "batch_size": self.config.batch_size, "label_smoothing": self.config.label_smoothing,
            "copy_window": self.config.copy_window, "compile": self.options.compile,
        }  # fmt: skip
        if self.config.phase2_optimizer != "adamw":  # which records from before do not name
            common["optimizer"] = self.config.phase2_optimizer
        if model.startswith("ours"):
            common["ours"] = self.given.ours
        elif self.given.baselines:
            common["baselines"] = self.given.baselines
        missing = [
            settings
            for seed in dict.fromkeys(self.options.seeds)
            if self.records.find(settings := {**common, "seed": seed}) is None
        ]
        if not missing:
            return
        print(f"{model}, {target:,.0f} parameters, {self.num_tokens:,} tokens", flush=True)
        task = Task(
            self.config, self.data, target, self.options.epochs, self.options.patience,
            self.device, self.given.ours, self.given.baselines, self.options.compile,
        )  # fmt: skip
        trained = candidate(model, task)
        values = self._tuned(trained, study_name(common)) if self.options.trials else trained.first
        for settings in missing:
            self._seed(trained, values, settings)

    def _tuned(self, trained: Candidate, name: str) -> Mapping[str, float]:
        return tune(
            trained,
            storage=f"sqlite:///{self.options.records.with_suffix('.db')}",
            name=name,
            num_trials=self.options.trials,
            seed=self.config.random_seed,
            report=lambda line: print(f"  {line}", flush=True),
        ).values

    def _seed(self, trained: Candidate, values: Mapping[str, float], settings: Settings) -> None:
        training = trained.train(values, settings["seed"])
        test_loss = mean_loss(training.model, self.data.test_rows.tokens.to(self.device))
        self._store(settings, test_loss, trained.generator(training.model), {
            "parameters": count_parameters(training.model),
            "window": self.config.max_seq_length if settings["model"] == "gpt" else None,
            "val_loss": training.val_loss, "seconds": training.seconds,
            "tokens_per_second": self.num_tokens * training.num_passes / training.seconds,
            "best_epoch": training.best_epoch, "num_epochs": training.num_epochs,
            "values": dict(values), "curve": training.curve,
        })  # fmt: skip

    def _store(
        self,
        settings: Settings,
        test_loss: float,
        generator: Generator[Any],
        trained: Mapping[str, Any],
    ) -> None:
        rows = self.data.test_rows.tokens
        text = rows.flatten().to(self.device)
        position = self.options.long_position
        result = {
            **trained,
            "test_loss": test_loss,
            "test_ppl": math.exp(test_loss),
            "bits_per_byte": test_loss / math.log(2) * rows[:, 1:].numel() / self._num_bytes(rows),
            "test_tokens": rows.numel(),
            "milliseconds_at_100": milliseconds_a_token(generator, text, 100),
            "milliseconds_at_long_position": milliseconds_a_token(generator, text, position),
            "long_position": position,
            "machine": f"torch {torch.__version__}, optuna {optuna.__version__}, "
            f"{device_name(self.device)}, {torch.get_num_threads()} threads",
        }
        self.records.add(Cell(settings, result))
        seed = f", seed {settings['seed']}" if "seed" in settings else ""
        print(
            f"  {settings['model']}{seed}: {result['parameters']:,} parameters, "
            f"test_ppl {result['test_ppl']:.2f}, {result['seconds']:.1f} s",
            flush=True,
        )

    def _num_bytes(self, rows_NT: Tensor) -> int:
        """UTF-8 bytes of the text of all tokens that are predicted; end-of-text has none."""
        texts = self.data.tokenizer.decode_batch(rows_NT[:, 1:].tolist(), skip_special_tokens=True)
        return sum(len(text.encode()) for text in texts)

    def _data_settings(self, model: str) -> dict[str, Any]:
        options = self.options
        return {
            "model": model, "tokens": self.num_tokens, "corpus": options.corpus,
            "tokenizer": options.tokenizer, "vocab_size": self.data.vocab_size,
            "max_seq_length": options.max_seq_length, "num_val_samples": len(self.data.val_rows),
        }  # fmt: skip


def study_name(settings: Settings) -> str:
    """Of all settings but the number of trials: a study that is asked for more goes on."""
    text = json.dumps({name: settings[name] for name in sorted(settings) if name != "trials"})
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{settings['model']}, {settings['tokens']} tokens, {digest}"
