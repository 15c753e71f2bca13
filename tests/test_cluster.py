"""The jobs in `cluster/` on a real Slurm give the results of the same commands by hand, however often interrupted."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML

from pipeline.artifacts.history import read_history
from pipeline.demo import workspace_environment
from pipeline.lm.record import EpochRecord
from pipeline.settings.params import read_yaml
from tests.slurm import NODES, Cluster, slurm
from tests.small import ROOT
from tests.test_pipeline import Repository
from tests.test_sweep import GRID, assert_complete, write_sweep
from tests.workspaces import workspace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

EPOCHS = 5  # a few more than necessary: on a busy machine an interrupt may come some epochs late
TIME_IS_UP = ("scancel", "--batch", "--signal=USR1")  # what --signal makes Slurm do


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm() as cluster:
        yield cluster


def with_jobs(folder: Path) -> Path:
    shutil.copytree(ROOT / "cluster", folder / "cluster")
    return folder


def slow_workspace(folder: Path, **params: Any) -> Path:
    """A workspace in which an epoch is long enough to be interrupted in the middle."""
    path = workspace(folder, EPOCHS) / "params.yaml"
    settings = read_yaml(path) | params
    settings["train"]["bptt"] = 4
    path.write_text(json.dumps(settings))
    return with_jobs(folder)


def train(folder: Path, model: str) -> None:
    """Train a model by hand, without interruptions."""
    command = [sys.executable, "-m", "pipeline.train", model]
    subprocess.run(command, cwd=folder, env=workspace_environment(), check=True, capture_output=True)


def until_epoch(epoch: int, cluster: Cluster, job: str, log: Path) -> None:
    """Wait until a job reports the end of an epoch."""
    line = re.compile(rf"epoch {epoch}/{EPOCHS}  (rate|valid)")
    cluster.until(lambda: log.exists() and bool(line.search(log.read_text())), job)


def timeless(history: Path) -> list[EpochRecord]:
    return [replace(record, tokens_per_second=1, seconds=1, finished_at="") for record in read_history(history)]


def assert_same_training(model: str, ours: Path, theirs: Path) -> None:
    """Weights are equal bit for bit, histories except for times; and one finished run has a point for each epoch."""
    results = Path("results/models") / model
    weights = results / "model.safetensors"
    assert (ours / weights).read_bytes() == (theirs / weights).read_bytes()
    assert timeless(ours / results / "history.csv") == timeless(theirs / results / "history.csv")
    client = MlflowClient(f"sqlite:///{ours / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("recurrent-lm").experiment_id])
    assert run.info.status == "FINISHED"
    points = client.get_metric_history(run.info.run_id, "perplexity/valid")
    assert [point.step for point in points] == list(range(1, EPOCHS + 1))


def files(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stages(repository: Repository) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load((repository.path / "dvc.lock").read_text())["stages"]


def test_the_jobs_of_the_pipeline_give_the_results_of_dvc_repro(cluster: Cluster, tmp_path: Path) -> None:
    ours, demo = Repository(tmp_path / "ours"), Repository(tmp_path / "demo")
    with ThreadPoolExecutor() as pool:
        demo_ends = pool.submit(demo.dvc, "repro")
        submitted = cluster.run("cluster/pipeline", "--cpus-per-task=1", folder=with_jobs(ours.path))
        *_, report = re.findall(r"\d+", submitted)
        cluster.wait(report)
        demo_ends.result()
    assert "slurm-" not in ours.git("status", "--short", "--untracked-files=all")
    assert ours.dvc("status").strip() == "Data and pipelines are up to date."

    for history in (ours.path / "results/models").glob("*/history.csv"):
        other = demo.path / history.relative_to(ours.path)
        assert timeless(history) == timeless(other)
        shutil.copyfile(history, other)  # from here on, with our times
    demo.run(sys.executable, "-m", "pipeline.report")
    assert files(ours.path / "results") == files(demo.path / "results")
    demo.dvc("commit", "--force")
    assert stages(ours) == stages(demo)
    assert sorted((run.info.run_name, run.info.status) for run in ours.runs()) == [
        (model, "FINISHED") for model in sorted(read_yaml(ours.path / "params.yaml")["models"])
    ]


def test_a_training_job_that_is_requeued_and_preempted_ends_like_an_undisturbed_one(
    cluster: Cluster, tmp_path: Path
) -> None:
    ours, undisturbed = slow_workspace(tmp_path / "ours"), slow_workspace(tmp_path / "undisturbed")
    job = cluster.submit(ours, "cluster/train.sbatch", "lstm_dropout")
    log = ours / f"slurm-{job}.out"
    for epoch, ending in enumerate((TIME_IS_UP, ("scontrol", "requeue")), start=1):
        until_epoch(epoch, cluster, job, log)
        history = read_history(ours / "results/models/lstm_dropout/history.csv")
        time.sleep(min(record.seconds for record in history) / 4)
        cluster.run(*ending, job)
        cluster.until(lambda times=epoch: log.read_text().count("continuing after") == times, job)
    cluster.wait(job)
    assert re.search(r"continuing after step \d+ of epoch [2-5]\n", log.read_text())  # on a busy machine, not each time
    train(undisturbed, "lstm_dropout")
    assert_same_training("lstm_dropout", ours, undisturbed)


def test_a_training_job_on_two_nodes_survives_the_loss_of_one(cluster: Cluster, tmp_path: Path) -> None:
    ours, undisturbed = (slow_workspace(tmp_path / name, processes=2) for name in ("ours", "undisturbed"))
    job = cluster.submit(ours, "--nodes=2", "cluster/train.sbatch", "gru_dropout")
    log = ours / f"slurm-{job}.out"
    until_epoch(1, cluster, job, log)
    cluster.freeze(NODES[1])
    cluster.wait(job, "PENDING")
    cluster.crash(NODES[1])
    train(undisturbed, "gru_dropout")
    cluster.boot(NODES[1])
    cluster.wait(job)
    assert "continuing after " in log.read_text()
    assert_same_training("gru_dropout", ours, undisturbed)


def test_a_sweep_is_finished_by_the_other_worker_if_one_is_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    folder = with_jobs(workspace(tmp_path / "workspace", EPOCHS))
    settings = {
        "epochs": EPOCHS,
        "hidden_size": 16,
        "embedding_size": 16,
        "cell": ["gru", "lstm"],
        "dropout": [0.0, 0.2],
    }
    write_sweep(folder, sampler=GRID, trials=None, pruner=None, settings=settings)
    job = cluster.submit(folder, "--array=1-2", "cluster/sweep.sbatch", "small.yaml")
    log = folder / f"slurm-{job}_1.out"
    until_epoch(1, cluster, job, log)
    cluster.run("scancel", f"{job}_1")
    cluster.wait(f"{job}_2")
    assert_complete(folder, 4)
