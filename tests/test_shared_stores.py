"""Two machines that train into shared stores, and a third that gets their results without training.

The stores are real: MLflow's server on PostgreSQL with its artifacts in S3, and a DVC remote in S3. Each machine is a
separate clone.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from mlflow import MlflowClient

from tests.services import mlflow_server, postgresql, s3
from tests.test_pipeline import Repository

pytestmark = [pytest.mark.stores, pytest.mark.timeout(900)]

EPOCHS = 2
MODELS = ("lstm_dropout", "gru")
KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass
class Stores:
    """mlflow: the server's address; s3: the endpoint."""

    mlflow: str
    s3: str

    def join(self, repository: Repository) -> Repository:
        """What a user does in each clone: name the endpoint, in a file that git ignores, and the server."""
        repository.dvc("remote", "modify", "--local", "shared", "endpointurl", self.s3)
        repository.environment = KEYS | {"MLFLOW_TRACKING_URI": self.mlflow}
        return repository


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    with postgresql() as database, s3() as endpoint:
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **credentials())
        for bucket in ("ptb-dvc", "ptb-mlflow"):
            client.create_bucket(Bucket=bucket)
        with mlflow_server(database, "s3://ptb-mlflow", KEYS | {"MLFLOW_S3_ENDPOINT_URL": endpoint}) as address:
            yield Stores(address, endpoint)


def credentials() -> dict[str, str]:
    return {name.lower(): value for name, value in KEYS.items() if name != "AWS_DEFAULT_REGION"}


@pytest.fixture(scope="module")
def machines(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, Repository]:
    """Two clones that have each trained a model, at once, and pushed everything to DVC's remote and to git."""
    folder = tmp_path_factory.mktemp("machines")
    first = Repository(folder / "first")
    first.edit_params(lambda params: params["train"].update(epochs=EPOCHS))
    first.edit_params(lambda params: params.update(models={name: params["models"][name] for name in MODELS}))
    first.dvc("remote", "add", "--default", "shared", "s3://ptb-dvc")
    stores.join(first).dvc("repro", "preprocess")
    first.dvc("push")
    first.commit("data")
    first.git("clone", "--quiet", "--bare", ".", str(folder / "origin"))
    first.git("remote", "add", "origin", str(folder / "origin"))
    first.git("fetch", "--quiet", "origin")
    first.git("branch", "--set-upstream-to", f"origin/{first.git('branch', '--show-current').strip()}")
    second = stores.join(first.clone(folder / "second"))
    second.git("remote", "set-url", "origin", str(folder / "origin"))

    def train(machine: Repository, model: str) -> None:
        output = machine.dvc("repro", "--pull", f"evaluate@{model}")
        assert machine.stages_run(output) == {f"train@{model}", f"evaluate@{model}"}
        machine.dvc("push")
        machine.commit(model)

    with ThreadPoolExecutor() as pool:
        list(pool.map(train, (first, second), MODELS))
    first.git("push", "--quiet")
    assert "CONFLICT (content): Merge conflict in dvc.lock" in second.run("git", "pull", "--no-rebase", check=False)
    second.run(sys.executable, "-m", "pipeline.merge_lock")
    second.git("commit", "--quiet", "--no-edit")
    second.git("push", "--quiet")
    return first, second


def test_every_run_and_artifact_of_both_machines_arrives_once(
    stores: Stores, machines: tuple[Repository, Repository], tmp_path: Path
) -> None:
    client = MlflowClient(stores.mlflow)
    runs = client.search_runs([client.get_experiment_by_name("recurrent-lm").experiment_id])
    assert sorted(run.info.run_name for run in runs) == sorted(MODELS)
    for run in runs:
        model = run.info.run_name
        folder = machines[MODELS.index(model)].path / "results/models" / model
        assert run.info.status == "FINISHED"
        assert run.info.artifact_uri.startswith("mlflow-artifacts:")
        points = client.get_metric_history(run.info.run_id, "perplexity/valid")
        assert [point.step for point in points] == list(range(1, EPOCHS + 1))
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert {"history.csv", "model.safetensors", "metrics.json"} <= files  # the rest, if the server was not too slow
        weights = Path(client.download_artifacts(run.info.run_id, "model.safetensors", str(tmp_path)))
        assert weights.read_bytes() == (folder / "model.safetensors").read_bytes()
        (version,) = client.search_model_versions(f"name = 'sample-{model}'")
        assert version.run_id == run.info.run_id
        assert client.get_model_version_by_alias(f"sample-{model}", "champion").version == version.version


def test_a_third_machine_gets_the_results_without_training(
    stores: Stores, machines: tuple[Repository, Repository], tmp_path: Path
) -> None:
    third = machines[0].clone(tmp_path / "third")
    third.git("pull", "--quiet", str(machines[1].path))
    stores.join(third).dvc("pull")
    for machine, model in zip(machines, MODELS, strict=True):
        weights = Path("results/models") / model / "model.safetensors"
        assert (third.path / weights).read_bytes() == (machine.path / weights).read_bytes()
        assert third.metrics(model) == machine.metrics(model)
    assert third.stages_run(third.dvc("repro")) == {"report"}
    assert third.dvc("status", "--cloud").strip() == "Cache and remote 'shared' are in sync."
    assert third.restore() == "MLflow: nothing to restore\n"
