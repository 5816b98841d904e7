"""Trials that are queued again."""

from collections.abc import Callable

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from tuning.retries import queue_again, queue_interrupted, retry_history


@pytest.mark.parametrize("queue", [queue_again, queue_interrupted])
def test_a_repeated_trial_is_drawn_as_before_and_measured_anew(
    queue: Callable[[optuna.Study, FrozenTrial], None], recwarn: pytest.WarningsRecorder
) -> None:
    study = optuna.create_study(
        sampler=optuna.samplers.GridSampler({"x": [0.25, 0.5]}),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1),
    )
    first = study.ask()
    x = first.suggest_float("x", 0.0, 1.0)
    first.set_user_attr("rank", 3.0)
    first.set_constraint("rank", -1.0)
    first.report(5.0, 1)
    first.should_prune()
    stored = study.trials[0]
    assert {"constraints:rank", "completed_rung_0"} <= set(stored.system_attrs)
    study.tell(first, state=TrialState.FAIL)
    queue(study, study.trials[0])

    again = study.ask()
    assert again.suggest_float("x", 0.0, 1.0) == x
    repeated = study.trials[1]
    assert repeated.system_attrs["grid_id"] == stored.system_attrs["grid_id"]
    assert retry_history(repeated) == [0]
    assert repeated.user_attrs == {}
    assert "completed_rung_0" not in repeated.system_attrs
    again.set_constraint("rank", 2.0)
    assert study.trials[1].system_attrs["constraints:rank"] == 2.0
    assert [warning for warning in recwarn if "constraint" in str(warning.message)] == []
