"""The whole pipeline through the real commands, in a repository of its own, on the sample corpus."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML

from pipeline.demo import build_workspace, workspace_environment
from pipeline.evaluate import CODE_OF_EVALUATION
from pipeline.sample import true_perplexity
from tests.small import ROOT, recipe_text

# In one group, one worker of pytest-xdist runs them all, and the repository is made once.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("pipeline")]

yaml = YAML(typ="safe", pure=True)

MODELS = ("lstm", "gru")
WEIGHTS = [f"results/models/{model}/model.safetensors" for model in MODELS]


class Repository:
    """A git and DVC repository with the project's code, the sample corpus and small models.

    environment: variables that its commands get besides
    """

    environment: Mapping[str, str] = {}

    def __init__(self, path: Path) -> None:
        self.path = path
        build_workspace(path, recipe_text("demo"))
        (path / ".dvc/config.local").unlink()  # this one has git
        for file in (".gitignore", ".dvcignore", ".dvc/.gitignore"):
            shutil.copyfile(ROOT / file, path / file)
        self.git("init", "-q")
        self.git("config", "user.name", "Tester")
        self.git("config", "user.email", "tester@example.com")
        self.commit("start")

    def run(self, *command: str, check: bool = True) -> str:
        """What a command prints, run as a person would in the repository's root with the environment activated."""
        environment = workspace_environment() | self.environment
        result = subprocess.run(command, cwd=self.path, env=environment, capture_output=True, text=True, check=False)
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments)

    def dvc(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "dvc", "--wait-for-lock", *arguments)

    def md5(self, stage: str, path: str) -> str:
        """The digest that dvc.lock has of an input or output of a stage."""
        locked = yaml.load((self.path / "dvc.lock").read_text())["stages"][stage]
        (digest,) = [file["md5"] for file in locked["deps"] + locked["outs"] if file["path"] == path]
        return digest

    def restore(self) -> str:
        return self.run(sys.executable, "-m", "pipeline.restore")

    def take_weights(self) -> str:
        return self.run(sys.executable, "-m", "pipeline.reference")

    def clone(self, path: Path) -> "Repository":
        """What git has of this repository, in another folder."""
        self.git("clone", "-q", str(self.path), str(path))
        clone = copy(self)
        clone.path = path
        clone.git("config", "user.name", "Tester")
        clone.git("config", "user.email", "tester@example.com")
        return clone

    def share_cache_of(self, other: "Repository") -> None:
        self.dvc("cache", "dir", "--local", str(other.path / ".dvc/cache"))

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", message)

    def edit_params(self, edit: Any) -> None:
        path = self.path / "params.yaml"
        params = yaml.load(path.read_text())
        edit(params)
        with path.open("w") as file:
            yaml.dump(params, file)

    def metrics(self, model: str) -> dict[str, float]:
        return json.loads((self.path / f"results/models/{model}/metrics.json").read_text())

    def stages_run(self, output: str) -> set[str]:
        return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")}

    def points(self, run: Any, metric: str = "perplexity/valid") -> list[tuple[int, float, int]]:
        client = MlflowClient(f"sqlite:///{self.path / 'mlflow.db'}")
        history = client.get_metric_history(run.info.run_id, metric)
        return [(point.step, point.value, point.timestamp) for point in history]

    def runs(self) -> list[Any]:
        client = MlflowClient(f"sqlite:///{self.path / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("recurrent-lm")
        return list(client.search_runs([experiment.experiment_id]))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The repository after its first `dvc repro`, of less than the demo has, committed with its weights."""
    repository = Repository(tmp_path_factory.mktemp("repository"))
    repository.edit_params(shorten)
    repository.commit("two models")
    said = repository.dvc("repro")
    assert "\nWARNING:" not in said  # DVC's own, not MLflow's of the machine
    assert "worse than guessing" not in said + (repository.path / "results/report/report.md").read_text()
    repository.dvc("push", "--remote", "reference", *WEIGHTS)
    repository.commit("results")
    return repository


def shorten(params: dict) -> None:
    """Two models of four epochs, both evaluated at their temperatures as well, one of them dynamically."""
    params["train"].update(epochs=4)
    params["models"] = {name: params["models"][name] for name in MODELS}
    how = {"learning_rate": 0.0001, "decay": 0.01, "epsilon": 0.001, "bptt": 5}
    params["evaluate"].update(dynamic={"gru": how}, temperature=True)


def edit(params: dict) -> None:
    """Another gru, and a third model."""
    params["models"]["gru"].update(bptt=30, epochs=2)
    params["models"].update(small={"cell": "gru", "hidden_size": 8, "epochs": 1})


@pytest.fixture(scope="module")
def ran_after_edit(repository: Repository) -> set[str]:
    """The stages that `dvc repro` ran after an edit, which is then undone, but not in DVC's cache."""
    repository.edit_params(edit)
    ran = repository.stages_run(repository.dvc("repro"))
    assert "small" in (repository.path / "results/report/report.md").read_text()
    undo_edit(repository)
    return ran


def undo_edit(repository: Repository) -> None:
    repository.git("checkout", "-q", ".")
    repository.git("clean", "-fdq", "results")
    repository.dvc("checkout")


def test_a_trained_model_comes_close_to_the_true_perplexity_and_not_below(repository: Repository) -> None:
    for model in MODELS:
        test = repository.metrics(model)["test_perplexity"]
        assert 0.97 * true_perplexity() < test < 1.5 * true_perplexity()


def test_mlflow_has_a_finished_run_of_every_model_with_every_epoch(repository: Repository) -> None:
    runs = {run.info.run_name: run for run in repository.runs()}
    assert set(runs) == set(MODELS)
    client = MlflowClient(f"sqlite:///{repository.path / 'mlflow.db'}")
    for model, run in runs.items():
        history = (repository.path / f"results/models/{model}/history.csv").read_text().splitlines()[1:]
        points = client.get_metric_history(run.info.run_id, "perplexity/valid")
        assert [(point.step, point.value) for point in points] == [
            (int(line.split(",")[0]), float(line.split(",")[3])) for line in history
        ]
        assert run.info.status == "FINISHED"
        assert run.data.metrics["best_test_perplexity"] == repository.metrics(model)["test_perplexity"]
        assert run.data.tags["dvc_stage"] == f"train@{model}"
        assert "warning" not in run.data.tags
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        results = {"history.csv", "model.safetensors", "curve.png", "metrics.json"}
        assert files == results | {"params.yaml", "packages.txt"}
        for tag, stage, path in (
            ("dvc_md5_corpus", "preprocess", "data/raw"),
            ("dvc_md5_ids", f"train@{model}", "data/processed"),
            ("dvc_md5_weights", f"train@{model}", f"results/models/{model}/model.safetensors"),
        ):
            assert run.data.tags[tag] == repository.md5(stage, path)


def test_a_fresh_clone_fills_mlflow_from_committed_files_then_takes_the_weights_from_git_and_trains_nothing(
    repository: Repository, tmp_path: Path
) -> None:
    clone = repository.clone(tmp_path / "clone")
    assert clone.restore() == "MLflow: restored gru, lstm\n"
    assert clone.restore() == "MLflow: nothing to restore\n"
    originals = {run.info.run_name: run for run in repository.runs()}
    runs = {run.info.run_name: run for run in clone.runs()}
    assert len(clone.runs()) == len(runs) == len(MODELS)
    for model, run in runs.items():
        original = originals[model]
        assert clone.points(run) == repository.points(original)
        assert run.data.params == original.data.params
        assert run.data.tags["restored"] == "true"
        same = {"dvc_md5_corpus", "dvc_md5_ids", "dvc_md5_weights", "mlflow.runColor", "recipe"}
        assert {tag: run.data.tags[tag] for tag in same} == {tag: original.data.tags[tag] for tag in same}
        assert run.data.tags["mlflow.source.git.commit"] == clone.git("rev-parse", "HEAD").strip()
        assert run.inputs.dataset_inputs[0].dataset.digest == original.inputs.dataset_inputs[0].dataset.digest
        final = {name: value for name, value in original.data.metrics.items() if "system/" not in name}
        assert final == {name: value for name, value in run.data.metrics.items() if "system/" not in name}
        assert abs(run.info.end_time - original.info.end_time) < 60_000  # the training's, not the restoration's

    kept = [file for file in (clone.path / "results/reference").rglob("*") if file.is_file()]
    assert {file.parent.name + file.name for file in kept} == {
        clone.md5(f"train@{model}", path) for model, path in zip(MODELS, WEIGHTS, strict=True)
    }
    assert clone.take_weights() == "restored from results/reference: the weights of gru, lstm\n"
    assert clone.take_weights() == ""
    assert clone.restore() == "MLflow: restored gru, lstm\n"
    assert clone.restore() == "MLflow: nothing to restore\n"
    assert len(clone.runs()) == len(MODELS)
    versions = MlflowClient(f"sqlite:///{clone.path / 'mlflow.db'}").search_model_versions()
    assert {(one.name, one.run_id) for one in versions} == {
        (f"sample-{model}", run.info.run_id) for model, run in runs.items()
    }

    clone.run(sys.executable, "-m", "pipeline.sample", "data/sample")
    assert clone.stages_run(clone.dvc("repro")) == {"download", "preprocess"}
    assert clone.git("status", "--porcelain") == ""
    clone.edit_params(lambda params: params["models"]["gru"].update(epochs=1))
    for path in WEIGHTS:
        (clone.path / path).unlink()
    assert clone.take_weights() == "restored from results/reference: the weights of lstm\n"


def test_a_second_repro_runs_nothing(repository: Repository) -> None:
    assert repository.stages_run(repository.dvc("repro")) == set()
    assert "up to date" in repository.dvc("status")


def test_the_repository_is_clean_after_its_results_are_committed(repository: Repository) -> None:
    assert repository.git("status", "--porcelain") == ""


def test_dvc_shows_metrics_plots_and_params(repository: Repository) -> None:
    metrics = json.loads(repository.dvc("metrics", "show", "--json"))
    assert {path: set(figures["data"]) for path, figures in metrics[""]["data"].items()} == {
        "results/valid_perplexity.json": set(MODELS)
    }
    assert json.loads(repository.dvc("plots", "show", "--json"))
    assert "index.html" in repository.dvc("plots", "show")
    assert repository.dvc("params", "diff") == ""


def test_an_edit_runs_only_what_it_concerns_and_a_new_model_needs_an_entry_in_params_alone(
    repository: Repository, ran_after_edit: set[str]
) -> None:
    assert ran_after_edit == {"train@gru", "evaluate@gru", "train@small", "evaluate@small", "report"}
    repository.edit_params(edit)
    assert "models.gru.bptt" in repository.dvc("params", "diff")
    assert repository.stages_run(repository.dvc("repro", "train@gru", "train@small")) == set()  # from DVC's cache
    undo_edit(repository)


def test_at_its_own_temperature_no_model_is_worse_on_the_text_that_it_is_fitted_on(repository: Repository) -> None:
    for name in MODELS:
        metrics = repository.metrics(name)
        assert 0.5 < metrics["temperature"] < 2
        assert metrics["valid_perplexity_tempered"] <= metrics["valid_perplexity"]
        assert metrics["test_perplexity_tempered"] < 1.1 * metrics["test_perplexity"]


def test_only_a_model_that_is_named_for_it_is_evaluated_dynamically(repository: Repository) -> None:
    static, dynamic = (repository.metrics("gru")[f"test_perplexity{kind}"] for kind in ("", "_dynamic"))
    assert 0.5 * static < dynamic < 1.1 * static
    assert dynamic != static
    assert "test_perplexity_dynamic" not in repository.metrics("lstm")


def test_what_dvc_restores_from_a_run_cache_that_is_shared_reaches_mlflow(
    repository: Repository, ran_after_edit: set[str], tmp_path: Path
) -> None:
    assert "train@gru" in ran_after_edit
    clone = repository.clone(tmp_path / "clone")
    clone.share_cache_of(repository)
    clone.edit_params(edit)
    assert clone.stages_run(clone.dvc("repro", "train@gru", "train@small")) <= {"preprocess"}
    assert clone.restore() == "MLflow: restored gru, lstm, small\n"
    assert {run.info.run_name: run.data.params["bptt"] for run in clone.runs()} == {
        "gru · epochs 2, bptt 30": "30",
        "lstm": "25",
        "small": "25",
    }
    undo_edit(clone)
    assert clone.restore() == "MLflow: restored gru, lstm\n"  # the training of before, and weights that came only now


def modified(status: str) -> dict[str, set[str]]:
    """The dependencies that `dvc status` finds modified, by stage."""
    found: dict[str, set[str]] = {}
    for line in status.splitlines():
        if line.endswith(":") and not line.startswith((" ", "\t")):
            found[stage := line.removesuffix(":")] = set()
        elif line.strip().startswith("modified:"):
            found[stage].add(line.split()[-1])
    return {stage: paths for stage, paths in found.items() if stage.startswith(("train", "evaluate")) and paths}


def test_only_the_language_models_code_makes_results_stale_and_accept_needs_its_proof(repository: Repository) -> None:
    schedule = repository.path / "pipeline/lm/schedule.py"
    proof = repository.path / "tests/test_golden.py"
    proof.parent.mkdir()
    watched = {repository.path / module for module in CODE_OF_EVALUATION}
    for module in (repository.path / "pipeline").rglob("*.py"):
        if "lm" not in module.relative_to(repository.path).parts and module not in watched:
            module.write_text(f"{module.read_text()}\n# a comment\n")
    assert modified(repository.dvc("status")) == {}

    schedule.write_text(schedule.read_text().replace("settings.learning_rate *", "2 * settings.learning_rate *"))
    trained = {f"train@{model}" for model in MODELS}
    assert trained <= modified(repository.dvc("status")).keys()
    proof.write_text("def test_golden():\n    assert False\n")
    before = (repository.path / "dvc.lock").read_bytes()
    refused = repository.run(sys.executable, "-m", "pipeline.accept", check=False)
    assert "error: tests/test_golden.py fails: this change moves numbers" in refused
    assert (repository.path / "dvc.lock").read_bytes() == before

    proof.write_text("def test_golden():\n    pass\n")
    repository.edit_params(lambda params: params["models"]["gru"].update(dropout=0.1))
    assert "accepted the code for evaluate@gru" in repository.run(sys.executable, "-m", "pipeline.accept")
    status = repository.dvc("status")
    assert "pipeline/lm" not in status
    assert "models.gru" in status  # that edit still has to be trained
    repository.git("checkout", "-q", ".")
    repository.git("clean", "-fdq", "tests")


def test_a_mistake_in_params_is_one_line_and_no_traceback(repository: Repository) -> None:
    repository.edit_params(lambda params: params["models"]["gru"].update(dropuot=0.1))
    output = repository.run(sys.executable, "-m", "dvc", "repro", check=False)
    repository.git("checkout", "-q", ".")
    assert "error: params.yaml: models.gru.dropuot: no such setting; did you mean dropout?" in output
    assert "Traceback" not in output
