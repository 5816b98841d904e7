"""Shows a phase while it runs: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Mapping

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from callbacks.figures import format_duration
from datamodules.plain_line import print_line
from datamodules.token_datamodule import TokenBatch

Describe = Callable[[Mapping[str, Tensor]], str]
"""The figures of a phase so far, in words; metrics by name."""

_SECONDS_A_LINE = 60.0
"""Between two lines where there is no bar."""
_STEPS_OF_AN_ESTIMATE = 5
"""Before the time left is estimated: the first steps are slow."""


class PhaseProgress(L.Callback):
    """A bar over the phase's optimiser steps, then one line with its last figures.

    Args:
        console: where to write.
        title: of the phase.
        unit: what the phase calls an epoch.
        describe: the figures that go with it.
        every_epoch: whether to write a line after every epoch too, with speed and time left, and
            one a minute in a long epoch.
    """

    def __init__(
        self,
        console: Console,
        *,
        title: str,
        unit: str,
        describe: Describe,
        every_epoch: bool = False,
    ) -> None:
        self.console = console
        self.title = title
        self.unit = unit
        self.describe = describe
        self.every_epoch = every_epoch
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._start = 0.0
        self._last_line = 0.0
        self._speed = _Speed()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = self._last_line = time.monotonic()
        self._speed = _Speed(first_step=trainer.global_step)
        if trainer.global_step > 0:
            self._print(f"  {self.title}: goes on {self._place(trainer)}")
        if not self.console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            transient=True,
        )
        self._task = self._progress.add_task(
            self.title,
            total=trainer.estimated_stepping_batches,
            completed=trainer.global_step,
            figures="",
        )
        self._progress.start()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: TokenBatch, batch_idx: int
    ) -> None:
        self._speed.start_clock()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: TokenBatch,
        batch_idx: int,
    ) -> None:
        self._speed.count(batch.tokens.numel() * trainer.world_size)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=trainer.global_step)
        elif self.every_epoch and time.monotonic() - self._last_line > _SECONDS_A_LINE:
            batches = f"batch {batch_idx + 1:,}/{trainer.num_training_batches:,}"
            self._print(f"  {self.title}: {self._epoch(trainer)}, {batches}, {self._pace(trainer)}")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._speed.stop_clock()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._speed.stop_clock()
        figures = f"{self._epoch(trainer)}, {self._figures(trainer)}"
        if self._progress is not None and self._task is not None:
            shown = f"{figures}, {self._speed}" if self.every_epoch else figures
            self._progress.update(self._task, figures=shown)
        if self.every_epoch:
            self._print(f"  {self.title}: {figures}, {self._pace(trainer)}")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._finish(trainer, "")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._finish(trainer, "stopped ")

    def _finish(self, trainer: L.Trainer, how: str) -> None:
        if self._start == 0.0:
            return
        if self._progress is not None:
            self._progress.stop()
        seconds = format_duration(time.monotonic() - self._start)
        self._start = 0.0
        epochs = f"{how}after {self.unit} {_epochs_done(trainer)}/{trainer.max_epochs}"
        self._print(f"  {self.title}: {epochs}, {self._figures(trainer)}, {seconds}")

    def _epoch(self, trainer: L.Trainer) -> str:
        return f"{self.unit} {trainer.current_epoch + 1}/{trainer.max_epochs}"

    def _place(self, trainer: L.Trainer) -> str:
        if not trainer.fit_loop.restarted_mid_epoch:
            return f"with {self._epoch(trainer)}"
        num_batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        after = f"after batch {num_batches:,}/{trainer.num_training_batches:,}"
        return f"in {self._epoch(trainer)} {after}"

    def _pace(self, trainer: L.Trainer) -> str:
        num_left = int(trainer.estimated_stepping_batches) - trainer.global_step
        num_done = trainer.global_step - self._speed.first_step
        if num_left <= 0 or num_done < _STEPS_OF_AN_ESTIMATE:
            return str(self._speed)
        seconds = (time.monotonic() - self._start) * num_left / num_done
        return f"{self._speed}, about {format_duration(seconds)} left"

    def _figures(self, trainer: L.Trainer) -> str:
        return self.describe(trainer.callback_metrics)

    def _print(self, line: str) -> None:
        self._last_line = time.monotonic()
        print_line(self.console, line)


class _Speed:
    """Training tokens a second, validation left out; `12,345 tokens/s`."""

    def __init__(self, first_step: int = 0) -> None:
        self.first_step = first_step
        self._num_tokens = 0
        self._seconds = 0.0
        self._since: float | None = None

    def start_clock(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def count(self, num_tokens: int) -> None:
        self._num_tokens += num_tokens

    def stop_clock(self) -> None:
        if self._since is not None:
            self._seconds += time.monotonic() - self._since
            self._since = None

    def __str__(self) -> str:
        running = 0.0 if self._since is None else time.monotonic() - self._since
        return f"{self._num_tokens / max(1e-9, self._seconds + running):,.0f} tokens/s"


def _epochs_done(trainer: L.Trainer) -> int:
    """Epochs whose training was finished, the one in which validation raised counted in."""
    progress = trainer.fit_loop.epoch_progress.current
    batches_left = not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    return progress.completed if batches_left else max(progress.completed, progress.ready)
