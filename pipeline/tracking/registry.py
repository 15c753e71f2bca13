"""MLflow's registry, from which trained models are loaded and served.

Every training run becomes a version of `<corpus>-<model>`, linked to its MLflow run. The alias `champion` is the best.
"""

import math
import shutil
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipeline.artifacts.weights import read_description
from pipeline.corpus.words import EOS
from pipeline.project.console import warn
from pipeline.tracking.facts import RunFacts, shown
from pipeline.tracking.faults import explain
from pipeline.tracking.notes import describe_run
from pipeline.tracking.store import connect, within

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

CHAMPION = "champion"
SERVED_MODEL = Path(__file__).parent / "served_model.py"
PACKAGE = Path(__file__).parents[1]
REQUIREMENTS = ("mlflow", "numpy", "pandas", "pydantic", "safetensors", "torch", "tqdm")


def register(facts: RunFacts, run_id: str, weights_file: Path, valid_perplexity: float) -> None:
    """Register a training run as a version of its model, unless it is already. If MLflow fails, there is a warning."""
    try:
        within(lambda: _register(facts, run_id, weights_file, valid_perplexity))
    except Exception as error:  # the results do not depend on it
        reason = explain(error)
        warn(f"{facts.model} is not registered: {reason}; `python -m pipeline.evaluate {facts.model}` tries again")


def _register(facts: RunFacts, run_id: str, weights_file: Path, valid_perplexity: float) -> None:
    if facts.data_sha256 is None or facts.fingerprint is None:
        raise ValueError("its corpus or its fingerprint is not available")
    client, experiment_id = connect()
    name = f"{facts.corpus_name}-{facts.model}"
    tags = {
        "fingerprint": facts.fingerprint,
        "data_sha256": facts.data_sha256,
        "valid_perplexity": str(valid_perplexity),
    }
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    for registered in versions:
        for tag in tags.keys() - registered.tags.keys():  # removed by someone; the champion is chosen by them
            client.set_model_version_tag(name, registered.version, tag, tags[tag])
    if not versions:
        if not client.search_registered_models(f"name = '{name}'", max_results=1):
            what = f"A language model of `{facts.corpus_name}`: it scores sentences and continues them."
            client.create_registered_model(name, description=what)
        model = _log_model(client, experiment_id, facts.model, run_id, weights_file)
        client.create_model_version(name, _source(client, model), run_id, tags, model_id=model.model_id)
    _promote_best(client, name, facts.data_sha256)
    describe_run(client, run_id)


def _source(client: "MlflowClient", model: "LoggedModel") -> str:
    """The location of a model, for the registry.

    A server looks `models:/ID` up in its own store. Without a server, MLflow would look it up in its default store,
    whatever the client's store is, and create that if there is none.
    """
    return f"models:/{model.model_id}" if client.tracking_uri.startswith("http") else model.artifact_location


def _log_model(client: "MlflowClient", experiment_id: str, name: str, run_id: str, weights_file: Path) -> "LoggedModel":
    """Write the model where MLflow keeps models: code, weights and signature. Returns MLflow's record.

    Whatever a failed registration left behind is reused.
    """
    import mlflow.pyfunc
    import pandas as pd  # type: ignore[import-untyped]
    from mlflow.models import Model

    example = " ".join(word for word in read_description(weights_file).vocabulary[:5] if word != EOS)
    left = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'", max_results=1)
    model = left[0] if left else client.create_logged_model(experiment_id, name, run_id)
    with TemporaryDirectory() as folder:
        # DVC may have put a link there, to a file with another name, and MLflow copies links as links.
        weights = shutil.copyfile(weights_file, f"{folder}/{weights_file.name}")
        shutil.copytree(PACKAGE, f"{folder}/pipeline", ignore=shutil.ignore_patterns("__pycache__", "html", ".*"))
        mlflow.pyfunc.save_model(
            f"{folder}/model",
            mlflow_model=Model(run_id=run_id, model_id=model.model_id),
            python_model=str(SERVED_MODEL),
            code_paths=[f"{folder}/pipeline"],
            artifacts={"weights": weights},
            signature=_signature(),
            input_example=pd.DataFrame({"text": [example]}),
            pip_requirements=[f"{package}=={version(package).partition('+')[0]}" for package in REQUIREMENTS],
        )
        client.log_model_artifacts(model.model_id, f"{folder}/model")
    client.finalize_logged_model(model.model_id, "READY")
    return model


def _signature() -> "ModelSignature":
    """The input and output of scoring; with the parameter `sentences`, the output is a column `text` instead."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    number, count = DataType.double, DataType.long
    inputs = Schema([ColSpec(DataType.string, "text")])
    outputs = Schema([ColSpec(number, "perplexity"), ColSpec(count, "tokens"), ColSpec(count, "unknown_words")])
    options = {"sentences": 0, "temperature": 1.0, "top_k": 0, "seed": 1, "max_words": 100}
    params = [ParamSpec(name, number if isinstance(value, float) else count, value) for name, value in options.items()]
    return ModelSignature(inputs, outputs, ParamSchema(params))


def _promote_best(client: "MlflowClient", name: str, data_sha256: str) -> None:
    """Point the alias to the version with the lowest validation perplexity, among those of the same corpus only."""
    versions = client.search_model_versions(f"name = '{name}' and tags.data_sha256 = '{data_sha256}'")
    best = min(versions, key=lambda version: (_valid_perplexity(client, version), int(version.version)))
    client.set_registered_model_alias(name, CHAMPION, best.version)


def _valid_perplexity(client: "MlflowClient", version: "ModelVersion") -> float:
    """A version's, from its tag or, if that was removed or damaged, from its run; infinite if neither has it."""
    from mlflow.exceptions import MlflowException

    with suppress(KeyError, ValueError):
        if not math.isnan(value := float(version.tags["valid_perplexity"])):
            return value
    with suppress(KeyError, MlflowException):
        metrics = client.get_run(version.run_id or "").data.metrics
        return metrics.get(shown("valid_perplexity")) or metrics["valid_perplexity"]  # its name in older runs
    return math.inf
