"""Shows a phase while it runs: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Mapping

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from callbacks.figures import format_duration

Describe = Callable[[Mapping[str, Tensor]], str]
"""The figures of a phase so far, in words; metrics by name."""


class PhaseProgress(L.Callback):
    """A bar over the phase's optimiser steps, then one line with its last figures.

    Args:
        console: where to write.
        title: of the phase.
        unit: what the phase calls an epoch.
        describe: the figures that go with it.
        every_epoch: whether to write a line after every epoch too.
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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = time.monotonic()
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

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object
    ) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=trainer.global_step)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        figures = self._figures(trainer)
        epoch = f"{self.unit} {trainer.current_epoch + 1}/{trainer.max_epochs}"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, figures=f"{epoch}  {figures}")
        if self.every_epoch:
            self._print(f"  {self.title}: {epoch}, {figures}")

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

    def _figures(self, trainer: L.Trainer) -> str:
        return self.describe(trainer.callback_metrics)

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _epochs_done(trainer: L.Trainer) -> int:
    """Epochs whose training was finished, the one in which validation raised counted in."""
    progress = trainer.fit_loop.epoch_progress.current
    batches_left = not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    return progress.completed if batches_left else max(progress.completed, progress.ready)
