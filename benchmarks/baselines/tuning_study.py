"""Tuning of one model: an Optuna study that goes on where it was left."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import optuna
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from benchmarks.baselines.candidates import Candidate
from config import InputError
from tuning.quota import FINISHED
from tuning.retries import queue_interrupted
from tuning.samplers import SeededSampler
from tuning.search_space import SearchSpace

_NUM_STARTUP_TRIALS = 4
"""Trials that are drawn at random before TPE looks at them: fewer than Optuna's 10, as a model
gets few trials here."""


class Best(NamedTuple):
    """values: of what is tuned. val_ppl: the lowest of its epochs."""

    values: Mapping[str, float]
    val_ppl: float


def tune(
    candidate: Candidate,
    *,
    storage: str,
    name: str,
    num_trials: int,
    seed: int,
    report: Callable[[str], None],
) -> Best:
    """Runs what is missing of a number of trials; the lowest validation perplexity wins.

    A training whose loss is not finite is a pruned trial. One that a signal or a killed process cut
    off is failed, and its values come first next time.

    Args:
        candidate: what to train.
        storage: URL of Optuna's storage; one process at a time.
        name: of the study.
        num_trials: finished trials in all.
        seed: of the sampler, and of every training.
        report: is told of each trial in a line.

    Raises:
        InputError: every trial's loss was not finite.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=SeededSampler(
            lambda seed: TPESampler(seed=seed, n_startup_trials=_NUM_STARTUP_TRIALS), seed
        ),
        load_if_exists=True,
    )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        _give_up(study, trial)
    if not study.trials:
        study.enqueue_trial(dict(candidate.first))
    while (number := len(study.get_trials(deepcopy=False, states=FINISHED))) < num_trials:
        line = _run_trial(study, candidate, seed)
        report(f"trial {number + 1} of {num_trials}: {line}")
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise InputError(f"all {num_trials} trials of {name} diverged; give --trials more.")
    return Best(study.best_params, study.best_value)


def _run_trial(study: optuna.Study, candidate: Candidate, seed: int) -> str:
    trial = study.ask()
    try:
        values = SearchSpace(candidate.ranges).suggest(trial)
        described = ", ".join(f"{key} {value:.3g}" for key, value in values.items())
        training = candidate.train(values, seed)
    except FloatingPointError as error:
        study.tell(trial, state=TrialState.PRUNED)
        return f"{described}: {error}"
    except BaseException:
        # Of any kind, as it is raised again: Optuna would take the trial for a running one.
        _give_up(study, study.get_trials()[trial.number])
        raise
    val_ppl = math.exp(training.val_loss)
    study.tell(trial, val_ppl)
    return (
        f"{described}: val_ppl {val_ppl:.2f} "
        f"(epoch {training.best_epoch} of {training.num_epochs}), {training.seconds:.0f} s"
    )


def _give_up(study: optuna.Study, trial: FrozenTrial) -> None:
    study.tell(trial.number, state=TrialState.FAIL)
    queue_interrupted(study, trial)
