"""What a study shows while it runs."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.status import Status
from torch import Tensor

from callbacks.figures import format_duration, format_rank
from callbacks.verdict import PRUNING_REASON
from datamodules.plain_line import print_line
from lightning_modules import metric_names as names
from tuning.trial_loop import INTERRUPTED, TIMEOUT, TRIAL_TIMEOUT


class StudyDisplay:
    """Writes lines to a console; bars, where it is a terminal, belong to the phases."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def line(self, text: str) -> None:
        """Writes one line as it is."""
        print_line(self.console, text)

    def trial_started(self, number: int, place: int, num_trials: int, parameters: str) -> None:
        self.line(f"Trial {number} ({place + 1} of {num_trials}): {parameters}")

    def trial_ended(
        self, name: str, trial: FrozenTrial, left: str, best: FrozenTrial | None = None
    ) -> None:
        """Tells how a trial ended, and a bug's traceback.

        Args:
            name: what the trial is one of.
            trial: that ended.
            left: what is left to do.
            best: of the study so far.
        """
        if trial.user_attrs.get(INTERRUPTED) == TIMEOUT:
            self.line(f"  The time is over: {name} {trial.number} is queued again.")
            return
        seconds = format_duration(trial_seconds(trial))
        best_text = "" if best is None else f"; best {best.value:.2f} (trial {best.number})"
        self.line(f"  {outcome(trial)}, {name} time {seconds}{best_text}; {left}")
        if trial.state == TrialState.FAIL and TRIAL_TIMEOUT not in trial.user_attrs:
            self.line(trial.user_attrs.get("traceback", ""))

    @contextlib.contextmanager
    def status_row(self, describe: Callable[[], str], every_seconds: float) -> Iterator[None]:
        """Keeps a terminal's last row up to date; shows nothing elsewhere.

        Args:
            describe: the row's text, asked for from a thread of its own.
            every_seconds: between two questions.
        """
        if not self.console.is_terminal:
            yield
            return
        ended = threading.Event()
        status = Status("", console=self.console)

        def keep() -> None:
            while not ended.wait(every_seconds):
                status.update(describe())

        thread = threading.Thread(target=keep, daemon=True)
        with status:
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()


def trial_seconds(trial: FrozenTrial) -> float:
    """Wall time of a trial that has ended, 0 of one that has not."""
    return trial.duration.total_seconds() if trial.duration is not None else 0.0


def outcome(trial: FrozenTrial) -> str:
    """How a trial ended, in words."""
    if trial.state == TrialState.COMPLETE:
        return f"val_ppl {trial.value:.2f}"
    if trial.state == TrialState.PRUNED:
        return f"pruned: {trial.user_attrs.get(PRUNING_REASON, 'unknown')}"
    if TRIAL_TIMEOUT in trial.user_attrs:
        return f"failed: {trial.user_attrs[TRIAL_TIMEOUT]}"
    return "failed"


def describe_phase1(metrics: Mapping[str, Tensor], context_dim: int) -> str:
    """`effective rank 650.2/768 (84.7%), converged 3.1%, |cos| 0.87`, of these what is measured.

    A sweep that is stopped has measured any of them.
    """

    def rank(value: float) -> str:
        return f"effective rank {format_rank(value, context_dim)}"

    formats: dict[str, Callable[[float], str]] = {
        names.PHASE1_EFFECTIVE_RANK: rank,
        names.PHASE1_CONVERGED_RATIO: "converged {:.1%}".format,
        names.PHASE1_CONTEXT_COSINE: "|cos| {:.3f}".format,
    }
    measured = [show(float(metrics[name])) for name, show in formats.items() if name in metrics]
    return ", ".join(measured) or "no sweep validated"


def describe_phase2(metrics: Mapping[str, Tensor]) -> str:
    """`val_ppl 215.31`."""
    if names.VAL_PPL not in metrics:
        return "no epoch validated"
    return f"val_ppl {float(metrics[names.VAL_PPL]):.2f}"
