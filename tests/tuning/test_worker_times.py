"""Workers and the end of the call's time, and signals that come while they begin."""

import io
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import command_line
import optimize
from config import Config
from datamodules.token_datamodule import TokenDataModule
from tests.tuning.hanging_worker import hang
from tuning import confirm, session, workers
from tuning.display import StudyDisplay
from tuning.study_options import StudyOptions
from tuning.trial_loop import WORKER, name_of


@pytest.mark.parametrize(("sent", "seconds"), [(signal.SIGINT, 0.0), (signal.SIGTERM, 1.5)])
def test_a_signal_ends_workers_that_still_import_without_a_word(
    sent: signal.Signals, seconds: float, capfd: pytest.CaptureFixture[str]
) -> None:
    lost: list[int] = []
    crew = workers._Crew(
        StudyDisplay(Console(file=io.StringIO())), lambda _, code: lost.append(code), lambda: ""
    )
    try:
        crew.start(0, {"OMP_NUM_THREADS": "1"}, hang)
        time.sleep(seconds)
        crew.send(sent)
        crew.wait(time.monotonic() + 60)
    finally:
        crew.kill()
    assert crew.exit_code == 128 + sent
    assert lost == []
    assert capfd.readouterr().err == ""


def run(deadline: float | None, lost: list[int]) -> tuple[int, str]:
    """The exit code of a worker that hangs, and what was shown."""
    output = io.StringIO()
    code = workers.run_workers(
        hang,
        [{"OMP_NUM_THREADS": "1"}],
        StudyDisplay(Console(file=output)),
        deadline=deadline,
        on_lost=lambda pid, code: lost.append(code),
        status=lambda: "",
    )
    return code, output.getvalue()


def test_no_worker_begins_after_the_time_is_over() -> None:
    lost: list[int] = []
    assert run(time.monotonic() - 1, lost) == (0, "")
    assert lost == []


def test_a_worker_that_does_not_end_with_the_time_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_FAREWELL_SECONDS", 0.5)
    lost: list[int] = []
    code, shown = run(time.monotonic() + 0.5, lost)
    assert code == 128 + 9
    assert lost == [-9]
    assert "[worker 0] was ended by signal 9" in shown


def test_a_worker_that_begins_as_the_time_ends_is_no_failure(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command_line, "listen_for_signals", lambda: None)
    options = StudyOptions(timeout=5, runs_dir=tmp_path / "runs")
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with pytest.raises(SystemExit) as ended:
        optimize.work(
            options,
            tiny_config,
            url,
            time.monotonic() - 6,
            StudyDisplay(Console(file=io.StringIO())),
        )
    assert ended.value.code == 0
    assert capsys.readouterr().err == ""


def test_what_a_lost_worker_confirmed_is_queued_again(
    tiny_config: Config,
    tiny_data: TokenDataModule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = StudyOptions(runs_dir=tmp_path / "runs", confirm=1)
    opened = session.open_session(options, tiny_config, None, 0.0, 2)
    space = opened.plan.space
    opened.study.optimize(lambda trial: sum(space.suggest(trial).values()), n_trials=1)
    confirmation = confirm.open_confirmation(opened.study, tiny_config, 1)
    confirmation.ask().set_user_attr(WORKER, name_of(1))

    def lose(*_: object, on_lost: Callable[[int, int], None], **__: object) -> int:
        on_lost(1, -9)
        return 137

    monkeypatch.setattr(workers, "run_workers", lose)
    output = io.StringIO()
    assert session.share(opened, hang, StudyDisplay(Console(file=output))) == 137
    assert "  confirmation 0 ended with it and is queued again" in output.getvalue()
    assert [trial.state.name for trial in confirmation.trials] == ["FAIL", *["WAITING"] * 3]
