"""Where MLflow keeps its runs: the project's own database, or the server that MLFLOW_TRACKING_URI names."""

import logging
import os
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.project.console import UserError
from pipeline.project.files import project_root

DEFAULT_EXPERIMENT = "recurrent-lm"
REMEDY = "the next stage or `make ui` writes what it lacks"


def prepare_store() -> None:
    """Make the default store where there is none, or see that the server answers. Raises UserError."""
    try:
        connect()
    except Exception as error:
        raise UserError(fault_message(error)) from None


def connect() -> tuple[Any, str]:
    """MLflow's client and our experiment's id.

    The default store is made by one process at a time: several at once would corrupt a fresh database. Its places are
    absolute, because `dvc exp run --temp` works in a copy that is thrown away.
    """
    root = project_root()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # the address may hold a password
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the next epoch tries again
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # its messages name the server with its password
    server = os.environ.get("MLFLOW_TRACKING_URI")
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_EXPERIMENT)
    with nullcontext() if server else FileLock(root / ".mlflow.lock"):
        if not server and not (root / "mlflow.db").exists():
            _create_database(root / "mlflow.db")
        client = MlflowClient(server or f"sqlite:///{root / 'mlflow.db'}")
        experiment = client.get_experiment_by_name(name)
        if experiment:
            return client, experiment.experiment_id
        try:
            return client, client.create_experiment(name, None if server else (root / "mlruns").as_uri())
        except Exception:  # another process was faster
            if experiment := client.get_experiment_by_name(name):
                return client, experiment.experiment_id
            raise


def _create_database(path: Path) -> None:
    """Make the default store's tables under another name first: killed half-way, they could never be opened again."""
    from mlflow import MlflowClient

    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.with_name(f"{partial.name}-journal").unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
    os.replace(partial, path)


def fault_message(error: Exception, remedy: str = REMEDY) -> str:
    """One line for a fault that leaves MLflow behind the files.

    remedy: what writes later whatever it lacks
    """
    return f"MLflow is behind: {explain(error)}: {remedy}"


def explain(error: Exception) -> str:
    """What went wrong in MLflow: one line, without the password that a server's address may hold."""
    if isinstance(error.__context__, OSError) and (server := os.environ.get("MLFLOW_TRACKING_URI")):
        reason = f"{server} does not answer"
    else:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"//[^/\s]*@", "//", reason)[:200]
