"""What the command line asks of a study; imports nothing that takes long."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from config import PresetName, require

DEFAULT_NAME = "dist_reg_weight_optimization"
_ROOT = Path(__file__).parents[1]
_LONGEST_SECONDS = 1e8
_LONGEST_NAME = 200


@dataclass(frozen=True)
class StudyOptions:
    """The study."""

    n_trials: int = 20
    """Finished trials (complete and pruned) in all, those of earlier calls and of other workers
    counted in."""
    timeout: float | None = None
    """Seconds after which this call ends; the running trial is cut off and queued again."""
    trial_timeout: float | None = None
    """Seconds after which a trial ends as failed."""
    study_name: str = DEFAULT_NAME
    """Name in the storage and folder below runs-dir."""
    storage: str | None = None
    """Database URL to keep the study in, to continue it from and to share it by, such as
    sqlite:///study.db, postgresql+psycopg://user:password@host/name or grpc://host:port; taken
    from the environment's OPTUNA_STORAGE where it is not given, else in memory."""
    workers: str = "1"
    """Processes that share the study on this machine, each with its part of the cores or a GPU of
    its own; `auto` takes one for every GPU, or for every core."""
    tune: str = "dist_reg_weight"
    """What is tuned, separated by commas: dist_reg_weight, contraction_weight, neighbour_share,
    phase1_learning_rate, ema_momentum, phase1_convergence_threshold."""
    range: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Another range for what is tuned, as phase1_learning_rate=1e-4:1e-2:log (or :linear); once for
    each parameter."""
    sampler: Literal["tpe", "gp", "cmaes", "random", "grid"] = "tpe"
    """What proposes the parameters: Optuna's sampler of that name."""
    pruner: Literal["median", "hyperband", "successive-halving", "none"] = "median"
    """What stops Phase 2 early: Optuna's pruner of that name."""
    confirm: int | None = None
    """Best settings to train again under three fresh seeds, of which the lowest mean wins; None
    takes 3 where at least 10 trials are complete."""
    allow_changed_settings: bool = False
    """Continue a study that was made with other settings, and mark the trials."""
    runs_dir: Path = Path("runs")
    """Folder of the TensorBoard logs."""
    output: Path = _ROOT / "config_optimized.py"
    """Python file to write the best configuration to."""
    preset: PresetName = "default"
    """Values to start from: `full` has what is best on half a million tokens or more, `published` is
    the published run, `smoke` takes seconds."""

    def __post_init__(self) -> None:
        require(self.n_trials >= 1, "n_trials", self.n_trials, "1 or more")
        for name in ("timeout", "trial_timeout"):
            value = getattr(self, name)
            # Beyond, a timer of the operating system overflows.
            holds = value is None or 0 < value <= _LONGEST_SECONDS
            require(holds, name, value, "a positive number up to 100 million")
        require(self.confirm is None or self.confirm >= 0, "confirm", self.confirm, "0 or more")
        name = self.study_name
        can_be_folder = bool(name.strip(". ")) and "/" not in name and "\\" not in name
        is_short = name.isprintable() and len(name.encode()) <= _LONGEST_NAME
        right = f"a name that can be a folder's, printable and of {_LONGEST_NAME} bytes at most"
        require(can_be_folder and is_short, "study_name", name, right)
