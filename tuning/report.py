"""What a study has found: gathered into a record, then written."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Group, JustifyMethod
from rich.table import Table

from callbacks.figures import format_duration, format_rank
from callbacks.verdict import PRUNING_REASON
from lightning_modules import metric_names as names
from tuning.confirm import Confirmed, describe_winner
from tuning.display import StudyDisplay, outcome, trial_seconds
from tuning.objective import DEVICE
from tuning.study import complete_trials
from tuning.trial_loop import INTERRUPTED, SURPLUS

_NUM_BEST = 5


class StudyReport(NamedTuple):
    """num_by_reason counts pruned trials by why; num_cut_off those stopped from outside; best holds
    complete trials, lowest `val_ppl` first, those of other settings than this call's last; confirmed
    those that were trained under fresh seeds, lowest mean first; others the numbers of complete
    trials of other settings; num_by_device counts complete trials by what they were computed on."""

    num_complete: int
    num_pruned: int
    num_failed: int
    num_cut_off: int
    num_by_reason: dict[str, int]
    best: list[FrozenTrial]
    median_seconds: float
    confirmed: Sequence[Confirmed] = ()
    others: frozenset[int] = frozenset()
    num_by_device: Mapping[str, int] = MappingProxyType({})

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
        num_by_device=Counter(trial.user_attrs.get(DEVICE, "unknown") for trial in complete),
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
        display.console.print(best_table(report.best, display.console.width, report.others))
    if len(report.num_by_device) > 1:
        counts = ", ".join(f"{n} on {device}" for device, n in report.num_by_device.items())
        display.line(
            f"Complete trials were computed {counts}: each rounds its own way, so that small "
            "differences between them tell nothing."
        )
    if report.confirmed:
        display.console.print(confirmed_table(report.confirmed, display.console.width))
        display.line(describe_winner(report.confirmed))
    display.line(f"TensorBoard logs: {log_dir}")
    display.line(f"  tensorboard --logdir {shlex.quote(str(log_dir))}")


def best_table(
    trials: Sequence[FrozenTrial], width: int, others: frozenset[int] = frozenset()
) -> Group:
    """The best trials; a parameter that one does not have is blank.

    Args:
        trials: to show.
        width: columns that there are for it.
        others: numbers of those that ran under other settings.
    """
    tuned = list(dict.fromkeys(name for trial in trials for name in trial.params))
    rows = [["trial", *tuned, names.VAL_PPL, "effective rank", "time"]]
    for trial in trials:
        attributes = trial.user_attrs
        dimensions = round(attributes["effective_rank"] / attributes["effective_rank_ratio"])
        rows.append(
            [
                f"{trial.number}{'*' if trial.number in others else ''}",
                *(f"{trial.params[name]:.6g}" if name in trial.params else "" for name in tuned),
                f"{trial.value:.2f}",
                format_rank(attributes["effective_rank"], dimensions),
                format_duration(trial_seconds(trial)),
            ]
        )
    is_mixed = any(trial.number in others for trial in trials)
    caption = "*: under other settings than these" if is_mixed else ""
    return _table("Best trials", rows, width, caption)


def confirmed_table(confirmed: Sequence[Confirmed], width: int) -> Group:
    """The settings that were trained under fresh seeds.

    Args:
        confirmed: to show.
        width: columns that there are for it.
    """
    seeds = [f"seed {index + 1}" for index in range(len(confirmed[0].values))]
    rows = [["trial", *confirmed[0].params, *seeds, "mean", "± std"]]
    for setting in confirmed:
        rows.append(
            [
                str(setting.trial),
                *(f"{value:.6g}" for value in setting.params.values()),
                *(f"{value:.2f}" for value in setting.values),
                f"{setting.mean:.2f}",
                f"{setting.spread:.2f}",
            ]
        )
    return _table("Under fresh seeds", rows, width)


def _table(title: str, rows: Sequence[Sequence[str]], width: int, caption: str = "") -> Group:
    """A table whose first row has the headings; on its side, in as many parts as it takes, where it
    is too wide."""
    headings, *others = rows
    widest = max(_width_of(cells) for cells in others)
    if sum(map(_width_of, zip(*rows, strict=True))) < width:
        tables = [_part(rows)]
    else:
        num_together = max(1, (width - 1 - _width_of(headings)) // widest)
        parts = [others[n : n + num_together] for n in range(0, len(others), num_together)]
        tables = [_part(list(zip(headings, *part, strict=True)), first="left") for part in parts]
    tables[0].title, tables[-1].caption = title, caption or None
    return Group(*tables)


def _width_of(column: Sequence[str]) -> int:
    return max(map(len, column)) + len("│  ")


def _part(rows: Sequence[Sequence[str]], first: JustifyMethod = "right") -> Table:
    table = Table(title_justify="left")
    for index, heading in enumerate(rows[0]):
        justify = "right" if index > 0 else first
        table.add_column(heading, justify=justify, overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
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
        ended: what came before its trials had finished, such as `a signal ended the study`; "" where
            the time was over.
    """
    if report.others:
        return "No trial completed under these settings; no configuration was written."
    if not report.num_pruned and not report.num_failed:
        if ended:
            return f"No trial finished before {ended}."
        return "No trial finished in the time that was given; allow a longer --timeout."
    causes = [f"{n} pruned: {reason}" for reason, n in sorted(report.num_by_reason.items())]
    if report.num_failed:
        causes.append(f"{report.num_failed} failed")
    return f"No trial completed ({', '.join(causes)}); no configuration was written."
