"""The examples of docs/scaling.md are what their tools accept, and ask for what we have."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import optuna
import pytest
import yaml

from tests.commands import ROOT, command, started
from tests.tuning.postgres import free_port

EXAMPLES = ROOT / "docs" / "examples"
BATCH = EXAMPLES / "slurm_array.sbatch"
MANIFEST = EXAMPLES / "kubernetes_job.yaml"
PROXY = EXAMPLES / "grpc_proxy.py"
GUIDE = ROOT / "docs" / "scaling.md"
README = ROOT / "README.md"
URL = "postgresql+psycopg://user:password@host/database"
# An option and its value have between them a blank, `=`, quotes, the end of a line that goes on, or
# what parts the items of a list. A shell, or Kubernetes, puts a variable's value in its place.
EXPOSED = re.compile(r"""--storage(?![\w-])[\s=\\"',-]*(?:\S*postgresql|\S*://\S*@|\S*\$)""")


@pytest.fixture(scope="module")
def claim_and_job() -> list[dict]:
    return list(yaml.safe_load_all(MANIFEST.read_text()))


@pytest.fixture(scope="module")
def job(claim_and_job: list[dict]) -> dict:
    return claim_and_job[1]


@pytest.fixture(scope="module")
def options() -> set[str]:
    """All that `optimize.py` knows."""
    told = subprocess.run(
        [sys.executable, str(ROOT / "optimize.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    return set(re.findall(r"--[a-z0-9-]+", told.stdout))


def batch_options() -> dict[str, str]:
    lines = re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", BATCH.read_text(), re.MULTILINE)
    return dict(lines)


def seconds(clock: str) -> int:
    hours, minutes, rest = (int(part) for part in clock.split(":"))
    return 3600 * hours + 60 * minutes + rest


def test_the_guide_refers_to_every_example() -> None:
    for example in EXAMPLES.iterdir():
        assert f"examples/{example.name}" in GUIDE.read_text()


def test_the_guide_links_to_what_exists() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", GUIDE.read_text()):
        assert (GUIDE.parent / target).exists(), target


@pytest.mark.parametrize("file", [BATCH, MANIFEST, GUIDE], ids=lambda file: file.name)
def test_every_option_exists(file: Path, options: set[str]) -> None:
    shell = file.read_text().replace("\\\n", " ")
    calls = re.findall(r"optimize\.py(?!\w)(.*)", shell)
    used = {option for call in calls for option in re.findall(r"--[a-z-]+", call)}
    if file == MANIFEST:
        arguments = list(yaml.safe_load_all(shell))[1]["spec"]["template"]["spec"]["containers"]
        used |= {argument.split("=")[0] for argument in arguments[0]["args"]}
    assert used
    assert used <= options | {"--all"}  # the last is of `optimize.py clean`


def test_the_options_that_the_guide_is_about(options: set[str]) -> None:
    assert {"--storage", "--study-name", "--n-trials", "--timeout", "--workers"} <= options


@pytest.mark.parametrize(
    "file", [BATCH, MANIFEST, PROXY, GUIDE, README], ids=lambda file: file.name
)
def test_no_password_on_a_command_line(file: Path) -> None:
    assert not EXPOSED.search(file.read_text())


@pytest.mark.parametrize(
    "text",
    [
        f"python optimize.py --n-trials 5 --storage {URL}",
        f"python optimize.py --storage={URL}",
        f"python optimize.py --storage '{URL}' --n-trials 5",
        f'python optimize.py --storage="{URL}"',
        f"python optimize.py --n-trials 5 \\\n    --storage {URL}",
        f'exec python optimize.py --storage \\\n    {URL} "$@"',
        'exec python optimize.py --storage "$OPTUNA_STORAGE" "$@"',
        "python optimize.py clean --storage $(<url.txt)",
        f"args:\n  - --n-trials=5\n  - --storage={URL}\n",
        f"args:\n  - --storage\n  - {URL}\n",
        f'args: ["--storage", "{URL}"]',
        "args:\n  - --storage=$(OPTUNA_STORAGE)\n",
        "python optimize.py --storage mysql+pymysql://user:password@host/database",
    ],
)
def test_a_password_on_a_command_line_is_found(text: str) -> None:
    assert EXPOSED.search(f"before\n{text}\nafter")


@pytest.mark.parametrize(
    "text",
    [
        f"OPTUNA_STORAGE={URL} python optimize.py",
        f"python optimize.py --storage sqlite:///study.db\n# elsewhere: {URL}",
        "python optimize.py --storage grpc://host:13000 --workers $N",
        f"requests:\n  storage: 20Gi\n# {URL}",
    ],
)
def test_no_password_is_found_where_there_is_none(text: str) -> None:
    assert not EXPOSED.search(text)


def test_the_batch_script_is_bash() -> None:
    read = subprocess.run(["bash", "-n", str(BATCH)], capture_output=True, text=True)
    assert (read.returncode, read.stderr) == (0, "")


def test_the_batch_script_ends_before_its_limit() -> None:
    asked = batch_options()
    timeout = int(re.search(r"--timeout (\d+)", BATCH.read_text())[1])
    # SLURM may signal up to a minute earlier than it was asked to.
    signalled = seconds(asked["time"]) - int(asked["signal"].removeprefix("B:TERM@")) - 60
    assert timeout <= signalled


def test_the_batch_script_starts_a_worker(tmp_path: Path) -> None:
    """With a stand-in for Python, as SLURM would run it: its signal must reach the worker."""
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "activate").write_text(f"PATH={folder}:$PATH\n")
    python = folder / "python"
    python.write_text('#!/bin/bash\necho "$$ $OMP_NUM_THREADS $OPTUNA_STORAGE $*"\n')
    python.chmod(0o755)
    (tmp_path / "url").write_text("postgresql+psycopg://a:b@c/d\n")
    given = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_CPUS_PER_TASK": "4"}
    process = subprocess.Popen(
        ["bash", str(BATCH), "--workers", "2"],
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "OPTUNA_STORAGE_FILE": str(tmp_path / "url"), **given},
    )
    said = process.communicate(timeout=30)[0].split()
    assert said[:3] == [str(process.pid), "4", "postgresql+psycopg://a:b@c/d"]
    assert said[3] == "optimize.py"
    assert said[-2:] == ["--workers", "2"]


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="SLURM is not installed")
def test_slurm_accepts_the_batch_script() -> None:
    asked = subprocess.run(["sinfo"], capture_output=True, text=True)
    if asked.returncode != 0:
        pytest.skip("no SLURM controller answers")
    tested = subprocess.run(
        ["sbatch", "--test-only", str(BATCH)], capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stderr


def test_the_job_runs_workers_side_by_side(job: dict) -> None:
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert spec["completionMode"] == "Indexed"
    assert 1 < spec["parallelism"] <= spec["completions"]
    assert spec["maxFailedIndexes"] <= spec["completions"]
    assert {"backoffLimitPerIndex", "podFailurePolicy"} <= spec.keys()
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # as podFailurePolicy demands
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_the_job_asks_for_a_gpu_and_bounds_its_memory(job: dict) -> None:
    (worker,) = job["spec"]["template"]["spec"]["containers"]
    limits, requests = (worker["resources"][name] for name in ("limits", "requests"))
    assert limits["nvidia.com/gpu"] == 1
    assert limits["memory"] == requests["memory"]
    threads = {entry["name"]: entry.get("value") for entry in worker["env"]}["OMP_NUM_THREADS"]
    assert threads == requests["cpu"]


def test_the_job_has_its_url_from_a_secret(job: dict) -> None:
    (worker,) = job["spec"]["template"]["spec"]["containers"]
    (url,) = [entry for entry in worker["env"] if entry["name"] == "OPTUNA_STORAGE"]
    secret = url["valueFrom"]["secretKeyRef"]
    create = f"create secret generic {secret['name']} --from-file={secret['key']}="
    assert create in MANIFEST.read_text()


def test_the_job_writes_to_a_shared_file_system(claim_and_job: list[dict]) -> None:
    claim, job = claim_and_job
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    pod = job["spec"]["template"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (worker,) = pod["containers"]
    (mount,) = worker["volumeMounts"]
    written = [
        argument.split("=")[1]
        for argument in worker["args"]
        if argument.startswith(("--runs-dir", "--cache-dir", "--output"))
    ]
    assert len(written) == 3
    assert all(path.startswith(f"{mount['mountPath']}/") for path in written)


def test_kubernetes_accepts_the_manifest(claim_and_job: list[dict]) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    assert [resource["kind"] for resource in claim_and_job] == ["PersistentVolumeClaim", "Job"]
    for resource in claim_and_job:
        validate(resource, "1.31", strict=True)


def test_the_proxy_serves_a_study(tmp_path: Path) -> None:
    port = free_port()
    url = f"sqlite:///{tmp_path / 'study.db'}"
    proxy = command("docs/examples/grpc_proxy.py", "--host", "127.0.0.1", "--port", str(port))
    served_url = {**os.environ, "OPTUNA_STORAGE": url}
    with started(proxy, tmp_path, stdout=None, stderr=None, environment=served_url):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = optuna.storages.GrpcStorageProxy(host="127.0.0.1", port=port)
        storage.wait_server_ready(timeout=30)
        study = optuna.create_study(storage=storage, study_name="shared")
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
        served = [trial.params for trial in study.trials]
        storage.close()
    direct = optuna.load_study(study_name="shared", storage=url)
    assert [trial.params for trial in direct.trials] == served


def test_the_proxy_says_what_is_missing(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPTUNA_STORAGE"}
    ran = subprocess.run(
        [sys.executable, str(PROXY)], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert ran.returncode == 1
    assert "OPTUNA_STORAGE is not set" in ran.stderr
