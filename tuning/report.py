"""What a study has found: gathered into a record, then written."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from callbacks.figures import format_duration, format_rank
from callbacks.verdict import PRUNING_REASON
from lightning_modules import metric_names as names
from tuning.confirm import Confirmed, describe_winner
from tuning.display import StudyDisplay, outcome, trial_seconds
from tuning.study import complete_trials
from tuning.trial_loop import INTERRUPTED, SURPLUS

_NUM_BEST = 5


class StudyReport(NamedTuple):
    """num_by_reason counts pruned trials by why; num_cut_off those stopped from outside; best holds
    complete trials, lowest `val_ppl` first, those of other settings than this call's last; confirmed
    those that were trained under fresh seeds, lowest mean first; others the numbers of complete
    trials of other settings."""

    num_complete: int
    num_pruned: int
    num_failed: int
    num_cut_off: int
    num_by_reason: dict[str, int]
    best: list[FrozenTrial]
    median_seconds: float
    confirmed: Sequence[Confirmed] = ()
    others: frozenset[int] = frozenset()

    @property
    def has_winner(self) -> bool:
        return bool(self.best) and self.best[0].number not in self.others

    @property
    def winner(self) -> dict[str, Any]:
        """The parameters to use: of the lowest mean where any were confirmed."""
        return self.confirmed[0].params if self.confirmed else self.best[0].params


def gather(
    study: optuna.Study, confirmed: Sequence[Confirmed] = (), changed: str = ""
) -> StudyReport:
    """Reads the trials of a study that has stopped.

    Args:
        study: to report.
        confirmed: see `StudyReport`.
        changed: see `complete_trials`.
    """
    trials = study.get_trials(deepcopy=False)
    by_state: dict[TrialState, list[FrozenTrial]] = {state: [] for state in TrialState}
    for trial in trials:
        by_state[trial.state].append(trial)
    pruned = by_state[TrialState.PRUNED]
    complete = by_state[TrialState.COMPLETE]
    failed = by_state[TrialState.FAIL]
    cut_off = [trial for trial in failed if INTERRUPTED in trial.user_attrs]
    own = complete_trials(study, changed)
    numbers = {trial.number for trial in own}
    others = sorted(
        (trial for trial in complete if trial.number not in numbers),
        key=lambda trial: trial.value or 0.0,
    )
    seconds = sorted(trial_seconds(trial) for trial in complete + pruned)
    return StudyReport(
        num_complete=len(complete),
        num_pruned=len(pruned),
        num_failed=len(failed) - len(cut_off),
        num_cut_off=sum(trial.user_attrs[INTERRUPTED] != SURPLUS for trial in cut_off),
        num_by_reason=dict(
            Counter(trial.user_attrs.get(PRUNING_REASON, "unknown") for trial in pruned)
        ),
        best=[*own, *others][:_NUM_BEST],
        median_seconds=seconds[len(seconds) // 2] if seconds else 0.0,
        confirmed=confirmed,
        others=frozenset(trial.number for trial in others),
    )


def show(report: StudyReport, seconds: float, log_dir: Path, display: StudyDisplay) -> None:
    """Writes the report; `seconds` is the wall time of this call."""
    reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(report.num_by_reason.items()))
    display.line("")
    display.line(
        f"Study ended after {format_duration(seconds)}: {report.num_complete} complete, "
        f"{report.num_pruned} pruned{f' ({reasons})' if reasons else ''}, "
        f"{report.num_failed} failed"
        f"{f', {report.num_cut_off} cut off' if report.num_cut_off else ''}; median trial time {format_duration(report.median_seconds)}"
    )
    if report.has_winner:
        best = report.best[0]
        parameters = ", ".join(f"{name} = {value!r}" for name, value in best.params.items())
        display.line(f"Best trial: {best.number}, {outcome(best)}, {parameters}")
    if report.best:
        display.console.print(best_table(report.best, report.others))
    if report.confirmed:
        display.console.print(confirmed_table(report.confirmed))
        display.line(describe_winner(report.confirmed))
    display.line(f"TensorBoard logs: {log_dir}")
    display.line(f"  tensorboard --logdir {log_dir}")


def best_table(trials: Sequence[FrozenTrial], others: frozenset[int] = frozenset()) -> Table:
    """The best trials, a row each; a parameter that one does not have is blank.

    Args:
        trials: to show.
        others: numbers of those that ran under other settings.
    """
    table = Table(title="Best trials", title_justify="left")
    tuned = list(dict.fromkeys(name for trial in trials for name in trial.params))
    for heading in ("trial", *tuned, names.VAL_PPL, "effective rank", "time"):
        table.add_column(heading, justify="right")
    if any(trial.number in others for trial in trials):
        table.caption = "*: under other settings than these"
    for trial in trials:
        attributes = trial.user_attrs
        dimensions = round(attributes["effective_rank"] / attributes["effective_rank_ratio"])
        table.add_row(
            f"{trial.number}{'*' if trial.number in others else ''}",
            *(f"{trial.params[name]:.6g}" if name in trial.params else "" for name in tuned),
            f"{trial.value:.2f}",
            format_rank(attributes["effective_rank"], dimensions),
            format_duration(trial_seconds(trial)),
        )
    return table


def confirmed_table(confirmed: Sequence[Confirmed]) -> Table:
    """The settings that were trained under fresh seeds, a row each."""
    table = Table(title="Under fresh seeds", title_justify="left")
    seeds = [f"seed {index + 1}" for index in range(len(confirmed[0].values))]
    for heading in ("trial", *confirmed[0].params, *seeds, "mean", "± std"):
        table.add_column(heading, justify="right")
    for setting in confirmed:
        table.add_row(
            str(setting.trial),
            *(f"{value:.6g}" for value in setting.params.values()),
            *(f"{value:.2f}" for value in setting.values),
            f"{setting.mean:.2f}",
            f"{setting.spread:.2f}",
        )
    return table


def provenance(report: StudyReport, study_name: str) -> str:
    """Where the parameters come from, in one line."""
    if report.confirmed:
        winner = report.confirmed[0]
        return (
            f"val_ppl {winner.mean:.4f} ± {winner.spread:.4f} over {len(winner.values)} fresh seeds:"
            f" trial {winner.trial} of study {study_name!r}, the lowest mean of "
            f"{len(report.confirmed)} confirmed settings."
        )
    best = report.best[0]
    return (
        f"val_ppl {best.value:.4f}: trial {best.number} of study {study_name!r}, "
        f"{report.num_complete} complete and {report.num_pruned} pruned trials, not confirmed."
    )


def explain_nothing_complete(report: StudyReport, ended: str = "") -> str:
    """Why a study has no result, in one line.

    Args:
        report: without a winner.
        ended: what ended the call before its trials had finished, such as `a signal`; "" where the
            time did.
    """
    if report.others:
        return "No trial completed under these settings; no configuration was written."
    if not report.num_pruned and not report.num_failed:
        if ended:
            return f"No trial finished before {ended} ended the study."
        return "No trial finished in the time that was given; allow a longer --timeout."
    causes = [f"{n} pruned: {reason}" for reason, n in sorted(report.num_by_reason.items())]
    if report.num_failed:
        causes.append(f"{report.num_failed} failed")
    return f"No trial completed ({', '.join(causes)}); no configuration was written."
