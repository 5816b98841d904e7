"""Signals, wherever in a study they arrive."""

import contextlib
import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any, cast

import lightning as L
import optuna
import pytest
import sqlalchemy
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor
from torch.utils.data import TensorDataset
from torch.utils.tensorboard import SummaryWriter

from config import Config
from tuning import signals
from tuning.quota import Total
from tuning.storage import open_storage
from tuning.training import NO_LOGGER, fit_phase
from tuning.trial_loop import NO_LIMITS, run_trials


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signals.listen_for_signals()
    yield
    with contextlib.suppress(KeyboardInterrupt):
        signals.await_put_off()  # or it would arrive at the next test's handler, or at none
    signals.listen_for_signals()  # forgets what a test raised
    for number, handler in before.items():
        signal.signal(number, handler)


def _objective(trial):  # type: ignore[no-untyped-def]
    trial.set_user_attr("phase", 1)
    trial.report(trial.suggest_float("x", 0, 1), 0)
    time.sleep(0.05)
    return 0.0


class Idle(L.LightningModule):
    def training_step(self, batch: Tensor) -> None:
        pass

    def configure_optimizers(self) -> None:
        pass


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("statement", range(0, 60, 3))
def test_no_signal_amid_a_write_harms_the_study(
    tmp_path: Path, statement: int, sent: signal.Signals
) -> None:
    """One study for every statement that a trial sends to its database."""
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    executed = itertools.count()

    def interrupt(*_: object) -> None:
        # The heartbeat's thread counts too: read and added to at once, or two signals are sent.
        if next(executed) == statement:
            signal.raise_signal(sent)

    sqlalchemy.event.listen(storage.engine, "before_cursor_execute", interrupt)  # type: ignore[attr-defined]
    check_that_the_signal_harms_nothing(storage, sent)


@pytest.mark.parametrize("event", range(0, 200, 8))
def test_no_signal_about_a_transaction_harms_the_study(tmp_path: Path, event: int) -> None:
    """In the project's own functions that wrap transactions, or are called as they begin."""
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    events = itertools.count()

    def interrupt(frame: FrameType, *_: object) -> None:
        if frame.f_globals.get("__name__") == "tuning.storage" and next(events) == event:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

    before = sys.getprofile()
    try:
        sys.setprofile(interrupt)
        check_that_the_signal_harms_nothing(storage, signal.SIGINT)
    finally:
        sys.setprofile(before)


def check_that_the_signal_harms_nothing(
    storage: optuna.storages.BaseStorage, sent: signal.Signals
) -> None:
    """Runs a study that a signal interrupts, and goes on with it."""
    # As if it stood in the room of the project's own objective.
    objective = FunctionType(_objective.__code__, {"__name__": "tuning.objective", "time": time})
    try:
        study = optuna.create_study(storage=storage, study_name="interrupted")
        study.optimize(objective, n_trials=3)
        signals.await_put_off()  # amid the last write
        signals.raise_if_lost()  # in what swallows it, such as a destructor; as the loop of trials does
    except KeyboardInterrupt as interrupted:
        assert isinstance(interrupted, signals.Terminated) == (sent == signal.SIGTERM)  # noqa: PT017
    else:
        pytest.fail("the signal was lost")
    again = optuna.create_study(
        study_name="interrupted",
        storage=open_storage(str(storage.url)),
        load_if_exists=True,  # type: ignore[attr-defined]
    )
    assert TrialState.RUNNING not in {trial.state for trial in again.trials}
    again.optimize(objective, n_trials=1)
    assert again.trials[-1].state == TrialState.COMPLETE


@pytest.mark.parametrize("event", range(1, 40, 2))
def test_no_signal_amid_a_log_entry_blocks_the_log(tmp_path: Path, event: int) -> None:
    """Raised between two lines of TensorBoard's queue, it left it waiting for ever."""
    writer = SummaryWriter(str(tmp_path))
    writer.add_scalar("warm-up", 0.0, 0)
    seen = itertools.count()
    rooms = ("tensorboard.summary.writer.event_file_writer", "queue", "threading")

    def interrupt(frame: FrameType, kind: str, _: object) -> Any:
        if frame.f_globals.get("__name__") in rooms and kind == "line" and next(seen) == event:
            signal.raise_signal(signal.SIGINT)
        return interrupt

    def write() -> None:
        sys.settrace(interrupt)
        try:
            writer.add_scalar("loss", 1.0, 1)
            writer.flush()
        finally:
            sys.settrace(None)
        signals.await_put_off()

    with pytest.raises(KeyboardInterrupt):
        write()
    closing = threading.Thread(target=writer.close, daemon=True)
    closing.start()
    closing.join(timeout=10)
    assert not closing.is_alive()


def test_a_signal_outside_of_the_study_is_raised_at_once() -> None:
    with pytest.raises(signals.Terminated):
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_amid_a_write_that_lightning_sees_first() -> None:
    """Lightning ends the training with an exit code of 0 by itself."""

    class Empty(Idle):
        def training_step(self, batch: Tensor) -> None:
            write()

    code = compile("def write(): signal.raise_signal(signal.SIGTERM)", "", "exec")
    room = {"__name__": "optuna.storages", "signal": signal}
    exec(code, room)
    write = cast(Callable[[], None], room["write"])
    data = L.LightningDataModule.from_datasets(TensorDataset(torch.zeros(500)))
    with pytest.raises(signals.Terminated):
        fit_phase(
            Empty(), data, config=Config(accelerator="cpu"), num_epochs=1, logger=NO_LOGGER,
            callbacks=[],
        )  # fmt: skip


def test_many_signals_amid_one_write_are_raised_once() -> None:
    """Another exception would break into the clean-up of the first, or into what comes after."""

    def impatient() -> None:
        for _ in range(5):
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.01)

    room = {"__name__": "optuna.storages", "signal": signal, "time": time}
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        FunctionType(impatient.__code__, room)()
        time.sleep(60)
    time.sleep(0.1)
    signals.await_put_off()


@pytest.mark.parametrize("room", ["tests", "lightning.pytorch.profilers", "tuning.objective"])
def test_a_signal_in_a_finaliser_is_raised_after_it(room: str) -> None:
    """Raised inside, or in what it calls, Python would print it and go on."""
    code = compile("signal.raise_signal(signal.SIGINT)", "", "exec")
    tidy = FunctionType(code, {"__name__": room, "signal": signal})
    ended = False

    class Finalised:
        def __del__(self) -> None:
            nonlocal ended
            tidy()
            ended = True

    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        made = Finalised()
        del made
        time.sleep(60)
    assert ended


def test_an_exception_of_the_clean_up_does_not_hide_a_signal() -> None:
    """Lightning calls its callbacks while the signal's exception ends the training."""

    class Failing(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            signal.raise_signal(signal.SIGINT)

        def on_exception(
            self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
        ) -> None:
            raise KeyError("a figure that is not there yet")

    data = L.LightningDataModule.from_datasets(TensorDataset(torch.zeros(4)))
    with pytest.raises(KeyboardInterrupt) as raised:
        fit_phase(
            Idle(), data, config=Config(accelerator="cpu"), num_epochs=1, logger=NO_LOGGER,
            callbacks=[Failing()],
        )  # fmt: skip
    assert isinstance(raised.value.__context__, KeyError)
    signals.raise_if_lost()  # it is raised again once


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("instead", [None, ValueError("clean-up"), optuna.TrialPruned()])
def test_a_swallowed_signal_ends_the_study(sent: signal.Signals, instead: Exception | None) -> None:
    """What swallows it returns a value or raises something else."""

    class Follower:
        def started(self, study: optuna.Study, trial: optuna.Trial, place: int) -> None:
            pass

        def ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
            pass

    def objective(trial: optuna.Trial) -> float:
        with contextlib.suppress(KeyboardInterrupt):
            raise_in_project()
        if instead is not None:
            raise instead
        return trial.suggest_float("x", 0, 1)

    room = {"__name__": "tuning.objective", "signal": signal, "sent": sent}
    raise_in_project = FunctionType(compile("signal.raise_signal(sent)", "", "exec"), room)
    study = optuna.create_study()
    with pytest.raises(KeyboardInterrupt) as raised:
        run_trials(study, objective, Total(3), NO_LIMITS, Follower())
    assert isinstance(raised.value, signals.Terminated) == (sent == signal.SIGTERM)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
