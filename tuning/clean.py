"""Ghosts: trials that run for ever in the storage because their process is gone."""

import datetime
import os
import re
import socket
from typing import NamedTuple

import optuna
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import FrozenTrial, TrialState

from config import InputError
from tuning.storage import CONFIRMATION, GRACE_SECONDS, open_storage, require_existing
from tuning.trial_loop import WORKER, end_trial


class RunningTrial(NamedTuple):
    """worker: `host:pid` or "" where none is known. seconds: since it began. ghost: why nobody
    runs it, "" where somebody seems to."""

    trial: FrozenTrial
    worker: str
    seconds: float
    ghost: str


def load_studies(url: str, name: str) -> list[optuna.Study]:
    """Opens a study that exists, and its confirmations.

    Raises:
        InputError: the storage cannot be opened or has no study of that name.
    """
    require_existing(url)
    storage = open_storage(url)
    names = optuna.get_all_study_names(storage)
    if name not in names:
        raise InputError(
            f"--study-name {name!r} is not in the storage; it has {', '.join(names) or 'none'}."
        )
    confirmation = re.compile(re.escape(name) + CONFIRMATION + "(_[0-9a-f]{8})?")
    return [
        optuna.load_study(storage=storage, study_name=found)
        for found in [name, *filter(confirmation.fullmatch, names)]
    ]


def running_trials(study: optuna.Study) -> list[RunningTrial]:
    """Every running trial of a study, and whether it is a ghost."""
    storage = study._storage
    silent = (
        storage._get_stale_trial_ids(study._study_id) if isinstance(storage, BaseHeartbeat) else []
    )
    now = datetime.datetime.now()
    found = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = str(trial.user_attrs.get(WORKER, ""))
        seconds = (now - (trial.datetime_start or now)).total_seconds()
        host, _, pid = worker.rpartition(":")
        ghost = ""
        if host == socket.gethostname() and not _is_alive(int(pid)):
            ghost = "its process is gone"
        elif trial._trial_id in silent:
            ghost = f"silent for more than {GRACE_SECONDS} s"
        elif not worker and seconds > GRACE_SECONDS:
            ghost = "no worker ever took it"
        found.append(RunningTrial(trial, worker, seconds, ghost))
    return found


def end_ghosts(
    study: optuna.Study, *, every: bool
) -> tuple[list[RunningTrial], list[RunningTrial]]:
    """Fails ghosts and queues their parameters again.

    Args:
        study: to clean.
        every: takes every running trial for a ghost.

    Returns:
        Those that were ended, and those that were left running.
    """
    running = running_trials(study)
    ended = [one for one in running if (every or one.ghost) and end_trial(study, one.trial)]
    return ended, [one for one in running if one not in ended]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
