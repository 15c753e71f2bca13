"""MLflow's client, for the store that `location` finds."""

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from pipeline.project.console import UserError
from pipeline.project.locks import Lock
from pipeline.tracking.database import prepare_database
from pipeline.tracking.deadline import within
from pipeline.tracking.faults import StoreError, fault_message
from pipeline.tracking.location import Location, locate, reach_this_machine_directly

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient

DEFAULT_EXPERIMENT = "recurrent-lm"
LOCK_SECONDS = 50.0


def prepare_store(remedy: str) -> None:
    """Create the default store if there is none, or check that the server answers.

    remedy: what will write whatever MLflow lacks

    Raises UserError.
    """
    try:
        within(connect)
    except Exception as error:
        raise UserError(fault_message(error, remedy)) from None


def connect() -> tuple["MlflowClient", str]:
    """MLflow's client and our experiment's id. Raises StoreError, and whatever MLflow raises."""
    client, location = open_client(), locate()
    with _alone_with(location):
        return client, _experiment(client, location)


def open_client() -> "MlflowClient":
    """MLflow's client; a store that is a file is made where there is none. Raises as `connect`."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # the address may hold a password
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the next epoch tries again
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
    reach_this_machine_directly()
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # its messages name the server with its password
    location = locate()
    with _alone_with(location):
        if location.database:
            prepare_database(location)
        return MlflowClient(location.address)


def _alone_with(location: Location) -> AbstractContextManager:
    """Keep other processes away from a store that is a file, until what is missing has been created."""
    path = location.database
    if path is None:
        return nullcontext()
    path.parent.mkdir(parents=True, exist_ok=True)
    return Lock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS)


def _experiment(client: "MlflowClient", location: Location) -> str:
    """Our experiment's id, created if there is none. Raises StoreError if it was deleted."""
    from mlflow.exceptions import MlflowException

    number = os.environ.get("MLFLOW_EXPERIMENT_ID")
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "").strip() or DEFAULT_EXPERIMENT
    experiment = client.get_experiment(number) if number else client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, location.artifacts))
        except MlflowException:  # another process was faster
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        command = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        if location.database:
            command = f"MLFLOW_TRACKING_URI={location.command_address} {command}"
        what = f"the experiment {experiment.name} was deleted in {location.name}"
        raise StoreError(what, f"`{command}` brings it back")
    return str(experiment.experiment_id)
