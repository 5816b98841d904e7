"""What a study has found: gathered into a record, then written."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from callbacks.figures import format_duration, format_rank
from callbacks.verdict import PRUNING_REASON
from lightning_modules import metric_names as names
from tuning.display import StudyDisplay, outcome, trial_seconds

_NUM_BEST = 5


class StudyReport(NamedTuple):
    """num_by_reason counts pruned trials by why; best holds complete trials, lowest `val_ppl` first."""

    num_complete: int
    num_pruned: int
    num_failed: int
    num_by_reason: dict[str, int]
    best: list[FrozenTrial]
    median_seconds: float


def gather(study: optuna.Study) -> StudyReport:
    """Reads the trials of a study that has stopped."""
    trials = study.get_trials(deepcopy=False)
    by_state: dict[TrialState, list[FrozenTrial]] = {state: [] for state in TrialState}
    for trial in trials:
        by_state[trial.state].append(trial)
    pruned = by_state[TrialState.PRUNED]
    complete = by_state[TrialState.COMPLETE]
    seconds = sorted(trial_seconds(trial) for trial in complete + pruned)
    return StudyReport(
        num_complete=len(complete),
        num_pruned=len(pruned),
        num_failed=len(by_state[TrialState.FAIL]),
        num_by_reason=dict(
            Counter(trial.user_attrs.get(PRUNING_REASON, "unknown") for trial in pruned)
        ),
        best=sorted(complete, key=lambda trial: trial.value or 0.0)[:_NUM_BEST],
        median_seconds=seconds[len(seconds) // 2] if seconds else 0.0,
    )


def show(report: StudyReport, seconds: float, log_dir: Path, display: StudyDisplay) -> None:
    """Writes the report; `seconds` is the wall time of this call."""
    reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(report.num_by_reason.items()))
    display.line("")
    display.line(
        f"Study ended after {format_duration(seconds)}: {report.num_complete} complete, "
        f"{report.num_pruned} pruned{f' ({reasons})' if reasons else ''}, "
        f"{report.num_failed} failed; median trial time {format_duration(report.median_seconds)}"
    )
    if report.best:
        best = report.best[0]
        parameters = ", ".join(f"{name} = {value!r}" for name, value in best.params.items())
        display.line(f"Best trial: {best.number}, {outcome(best)}, {parameters}")
        display.console.print(best_table(report.best))
    display.line(f"TensorBoard logs: {log_dir}")
    display.line(f"  tensorboard --logdir {log_dir}")


def best_table(trials: Sequence[FrozenTrial]) -> Table:
    """The best trials, a row each."""
    table = Table(title="Best trials", title_justify="left")
    for heading in ("trial", *trials[0].params, names.VAL_PPL, "effective rank", "time"):
        table.add_column(heading, justify="right")
    for trial in trials:
        attributes = trial.user_attrs
        dimensions = round(attributes["effective_rank"] / attributes["effective_rank_ratio"])
        table.add_row(
            str(trial.number),
            *(f"{value:.6g}" for value in trial.params.values()),
            f"{trial.value:.2f}",
            format_rank(attributes["effective_rank"], dimensions),
            format_duration(trial_seconds(trial)),
        )
    return table


def provenance(report: StudyReport, study_name: str) -> str:
    """Where the best parameters come from, in one line."""
    best = report.best[0]
    return (
        f"val_ppl {best.value:.4f}: trial {best.number} of study {study_name!r}, "
        f"{report.num_complete} complete and {report.num_pruned} pruned trials."
    )


def explain_nothing_complete(report: StudyReport) -> str:
    """Why a study has no result, in one line."""
    if not report.num_pruned and not report.num_failed:
        return "No trial finished in the time that was given; allow a longer --timeout."
    causes = [f"{n} pruned: {reason}" for reason, n in sorted(report.num_by_reason.items())]
    if report.num_failed:
        causes.append(f"{report.num_failed} failed")
    return f"No trial completed ({', '.join(causes)}); no configuration was written."
