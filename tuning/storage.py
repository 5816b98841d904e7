"""Where a study is kept: in memory, in a database, or behind a gRPC proxy of one."""

import functools
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import (
    BaseStorage,
    GrpcStorageProxy,
    InMemoryStorage,
    RDBStorage,
)
from sqlalchemy.engine import make_url

from config import InputError
from tuning import signals
from tuning.retries import queue_again

HEARTBEAT_SECONDS = 30
GRACE_SECONDS = 120
"""A running trial that was silent for so long belongs to a killed process."""
CONFIRMATION = "_confirmation"
"""What a study's confirmation adds to its name; eight more digits where settings were changed."""
_PATIENCE_SECONDS = 90.0
"""How long a database may be away; below the grace, or a trial that waits would be taken for dead."""
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
_CREATION_SECONDS = 10.0
_GRPC = "grpc://"
_GRPC_ANSWER_SECONDS = 5

_logger = logging.getLogger(__name__)


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    """Repeats a transaction that the database, and not its content, made fail."""

    @functools.wraps(method)
    def call(storage: "PatientStorage", *arguments: Any, **options: Any) -> Any:
        start, pause = time.monotonic(), _FIRST_PAUSE_SECONDS
        while True:
            try:
                return method(storage, *arguments, **options)
            except UpdateFinishedTrialError:
                if pause > _FIRST_PAUSE_SECONDS and method.__name__ == "set_trial_state_values":
                    return True  # the first attempt was stored, its answer was lost
                raise
            except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
                cause = error.__cause__ if isinstance(error, StorageInternalError) else error
                away = time.monotonic() - start
                if not _may_pass(cause) or away > _PATIENCE_SECONDS:
                    raise
                if pause > 1:
                    _logger.warning(
                        "The study's database does not answer (%s); trying for another %.0f s.",
                        _first_line(cause),
                        _PATIENCE_SECONDS - away,
                    )
                signals.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    return call


class PatientStorage(RDBStorage):
    """A database that may be restarted, or locked by another worker, while a study runs.

    A transaction that failed because the connection broke or the database was busy is repeated for
    90 seconds before its error is raised.
    """


_TRANSACTIONS = (
    *BaseStorage.__abstractmethods__,
    *("_create_new_trial", "_set_trial_param", "_get_trials", "_get_best_trial_id"),
    *("record_heartbeat", "_get_stale_trial_ids", "get_trial_id_from_study_id_trial_number"),
)
"""What Optuna calls of a database: the public interface, and what its cache goes by instead."""

for _name in _TRANSACTIONS:
    setattr(PatientStorage, _name, _patient(getattr(RDBStorage, _name)))


def open_storage(url: str | None) -> BaseStorage:
    """Opens a study storage.

    A database gets a heartbeat, so that the trial of a killed process is found, failed and queued
    again once.

    Args:
        url: `sqlite:///study.db`, `postgresql+psycopg://…`, `mysql://…`, `grpc://host:port` of a
            proxy; None keeps the study in memory.

    Raises:
        InputError: the URL is malformed, its driver is missing, or the database refuses.
    """
    if url is None:
        return InMemoryStorage()
    if url.startswith(_GRPC):
        return _open_proxy(url)
    shown = without_password(url)
    try:
        with warnings.catch_warnings():
            # Optuna calls heartbeats experimental; the user has no choice to make about it.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            is_sqlite = make_url(url).get_backend_name() == "sqlite"
            storage = _open_database(url, {"timeout": _PATIENCE_SECONDS} if is_sqlite else {})
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:
        reason = _first_line(getattr(error, "orig", None) or error)
        raise InputError(f"--storage {shown} cannot be opened: {reason}") from error
    if is_sqlite:
        _take_turns(storage.engine)
    return storage


def _open_database(url: str, connect_arguments: dict[str, object]) -> PatientStorage:
    """Repeated where other workers make the tables of an empty database at the same moment."""
    end = time.monotonic() + _CREATION_SECONDS
    while True:
        try:
            return PatientStorage(
                url,
                engine_kwargs={"pool_pre_ping": True, "connect_args": connect_arguments},
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=queue_again,
            )
        except sqlalchemy.exc.DBAPIError as error:
            exists = isinstance(error, sqlalchemy.exc.IntegrityError) or (
                "already exists" in str(error.orig)
            )
            if not exists or time.monotonic() > end:
                raise
        time.sleep(_FIRST_PAUSE_SECONDS)


def without_password(url: str) -> str:
    """The URL as it may be shown.

    Raises:
        InputError: it is no URL.
    """
    try:
        return make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError as error:
        raise InputError(
            "--storage is no database URL; it must be like sqlite:///study.db."
        ) from error


def require_shared(url: str) -> None:
    """Refuses a database that each process has for itself.

    Raises:
        InputError: it is kept in memory.
    """
    if _file_of(url) == ":memory:":
        raise InputError(
            f"--storage {url} is each process's own; leave it out, or give a file such as "
            "sqlite:///study.db, where there are several --workers."
        )


def require_existing(url: str) -> None:
    """Refuses an SQLite file that does not exist: opening it would make it.

    Raises:
        InputError: there is no such file.
    """
    file = _file_of(url)
    if file and not file.startswith("file:") and not Path(file).is_file():
        raise InputError(f"--storage {url}: there is no file {file}.")


def _file_of(url: str) -> str:
    """The file or URI of an SQLite database, `:memory:` where it has none; "" of another storage."""
    if url.startswith(_GRPC):
        return ""
    without_password(url)
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return ""
    is_in_memory = not parsed.database or parsed.query.get("mode") == "memory"
    return ":memory:" if is_in_memory else parsed.database or ""


def _open_proxy(url: str) -> BaseStorage:
    host, _, port = url.removeprefix(_GRPC).rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--storage is {url!r}; it must be like grpc://host:13000.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        proxy = GrpcStorageProxy(host=host, port=int(port))
    try:
        proxy.wait_server_ready(timeout=_GRPC_ANSWER_SECONDS)
    except ConnectionError as error:
        raise InputError(f"--storage {url} cannot be opened: no gRPC proxy answers.") from error
    return proxy


def _take_turns(engine: sqlalchemy.Engine) -> None:
    """Has every SQLite transaction take the write lock when it begins.

    As sqlite3 would have it, a transaction locks at its first write, after what it decided upon
    was read: two workers could take the same queued trial.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def _no_implicit_begin(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def _begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections that were made before


def _may_pass(cause: BaseException | None) -> bool:
    if isinstance(cause, sqlalchemy.exc.PendingRollbackError):
        return True  # Optuna, or a loader, went on in a transaction whose connection had broken
    if isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.connection_invalidated:
        return True
    return isinstance(cause, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError))


def _first_line(error: BaseException | None) -> str:
    # Later lines repeat the statement, and may repeat the password.
    return (str(error).splitlines() or [type(error).__name__])[0]
