"""MLflow's registry, from which trained models are loaded and served.

Every training becomes a version of `ptb-<model>`, linked to its run. The alias `champion` is on the best one.
"""

from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.corpus.words import EOS
from pipeline.project.console import warn
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.store import connect, explain

CHAMPION = "champion"
SERVED_MODEL = Path(__file__).parent / "served_model.py"
REQUIREMENTS = ("mlflow", "numpy", "pandas", "pydantic", "safetensors", "torch", "tqdm")


def register(facts: RunFacts, run_id: str, weights_file: Path, valid_perplexity: float) -> None:
    """Make the training of a run a version of its registered model, unless it is one. No fault of MLflow gets out."""
    try:
        _register(facts, run_id, weights_file, valid_perplexity)
    except Exception as error:  # a model that is not registered is as good
        reason = explain(error)
        warn(f"{facts.model} is not registered: {reason}; `python -m pipeline.evaluate {facts.model}` tries again")


def _register(facts: RunFacts, run_id: str, weights_file: Path, valid_perplexity: float) -> None:
    if facts.corpus is None or facts.fingerprint is None:
        raise ValueError("its corpus or its fingerprint is not at hand")
    client, experiment_id = connect()
    name = f"ptb-{facts.model}"
    if not client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'", max_results=1):
        if not client.search_registered_models(f"name = '{name}'", max_results=1):
            client.create_registered_model(name, description=f"Perplexity of sentences under {facts.model}")
        vocabulary = facts.corpus.vocabulary
        model_id = _log_model(client, experiment_id, facts.model, vocabulary, run_id, weights_file)
        tags = {
            "fingerprint": facts.fingerprint,
            "data_sha256": facts.corpus.fingerprint,
            "valid_perplexity": str(valid_perplexity),
        }
        client.create_model_version(name, f"models:/{model_id}", run_id, tags, model_id=model_id)
    _crown(client, name, facts.corpus.fingerprint)


def _log_model(
    client: Any, experiment_id: str, model: str, vocabulary: tuple[str, ...], run_id: str, weights_file: Path
) -> str:
    """Write the model where MLflow keeps models: code, weights and what it takes and gives. Returns its id."""
    import mlflow.pyfunc
    import pandas as pd  # type: ignore[import-untyped]
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    takes = Schema([ColSpec(DataType.string, "text")])
    gives = Schema(
        [
            ColSpec(DataType.double, "perplexity"),
            ColSpec(DataType.long, "tokens"),
            ColSpec(DataType.long, "unknown_words"),
        ]
    )
    example = " ".join(word for word in vocabulary[:5] if word != EOS)
    model_id: str = client.create_logged_model(experiment_id, model, run_id).model_id
    with TemporaryDirectory() as folder:
        mlflow.pyfunc.save_model(
            folder,
            mlflow_model=Model(run_id=run_id, model_id=model_id),
            python_model=str(SERVED_MODEL),
            code_paths=[str(SERVED_MODEL.parent)],
            artifacts={"weights": str(weights_file)},
            signature=ModelSignature(takes, gives),
            input_example=pd.DataFrame({"text": [example]}),
            pip_requirements=[f"{package}=={version(package).partition('+')[0]}" for package in REQUIREMENTS],
        )
        client.log_model_artifacts(model_id, folder)
    client.finalize_logged_model(model_id, "READY")
    return model_id


def _crown(client: Any, name: str, data_sha256: str) -> None:
    """Put the alias on the version of lowest validation perplexity; perplexities of other corpora do not compare."""
    versions = client.search_model_versions(f"name = '{name}' and tags.data_sha256 = '{data_sha256}'")
    best = min(versions, key=lambda version: (float(version.tags["valid_perplexity"]), int(version.version)))
    client.set_registered_model_alias(name, CHAMPION, best.version)
