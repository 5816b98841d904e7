"""Where a study is kept: in memory, or in a database by URL."""

import warnings

import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from sqlalchemy.engine import make_url

from config import InputError

_HEARTBEAT_SECONDS = 30


def open_storage(url: str | None) -> BaseStorage:
    """Opens a study storage.

    A database gets a heartbeat, so that the trial of a killed process is found and failed when
    the next one starts instead of running for ever.

    Args:
        url: `sqlite:///study.db`, `postgresql://…`, `mysql://…`; None keeps the study in memory.

    Raises:
        InputError: the URL is malformed, its driver is missing, or the database refuses.
    """
    if url is None:
        return InMemoryStorage()
    try:
        shown = make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError as error:
        raise InputError(
            "--storage is no database URL; it must be like sqlite:///study.db."
        ) from error
    try:
        with warnings.catch_warnings():
            # Optuna calls heartbeats experimental; the user has no choice to make about it.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return RDBStorage(url, heartbeat_interval=_HEARTBEAT_SECONDS)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:
        # The first line alone: later ones repeat the statement, and may repeat the password.
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise InputError(f"--storage {shown} cannot be opened: {reason}") from error


def is_persistent(study: optuna.Study) -> bool:
    """Whether the study outlives this process."""
    return not isinstance(study._storage, InMemoryStorage)
