"""MLflow's client for the store that `location` finds, and a deadline for its work."""

import concurrent.futures.thread
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from pipeline.project.console import UserError, say
from pipeline.project.locks import Lock
from pipeline.tracking.database import prepare_database
from pipeline.tracking.faults import AGAIN, StoreError, fault_message
from pipeline.tracking.location import Location, bypass_proxy_for_this_machine, locate

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient

DEFAULT_EXPERIMENT = "recurrent-lm"
LOCK_SECONDS = 50.0
DEADLINE_SECONDS = 60.0
SILENT_SECONDS = 5.0

T = TypeVar("T")


def prepare_store() -> None:
    """Create the default store if there is none, or check that the server answers. Raises UserError."""
    try:
        within(connect)
    except Exception as error:
        raise UserError(fault_message(error, AGAIN)) from None


def within(work: Callable[[], T]) -> T:
    """The result of `work`. Raises what it raises, and StoreError if it does not end in time.

    It then continues in a thread until the process ends, since Python cannot stop a thread. A time limit for each
    request would not help against a server that trickles its answer.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="mlflow, with a deadline", daemon=True).start()
    if wait([future], SILENT_SECONDS).not_done and not locate().database:
        say(f"waiting for {locate().name}, at most {DEADLINE_SECONDS:g} seconds")
    if wait([future], DEADLINE_SECONDS - SILENT_SECONDS).not_done:
        # At exit, Python would wait for the thread pools in which MLflow uploads files.
        threading._register_atexit(concurrent.futures.thread._threads_queues.clear)  # type: ignore[attr-defined]
        raise StoreError(f"{locate().name} did not accept everything within {DEADLINE_SECONDS:g} seconds")
    return future.result()


def connect() -> tuple["MlflowClient", str]:
    """MLflow's client and our experiment's id. Raises StoreError, and whatever MLflow raises."""
    client, location = open_client(), locate()
    with _alone_with(location):
        return client, _experiment(client, location)


def open_client() -> "MlflowClient":
    """MLflow's client; a store that is a file is created if there is none. Raises as `connect`."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # the address may hold a password
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the next epoch tries again
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
    bypass_proxy_for_this_machine()
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
        except MlflowException:  # another process has just created it
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        command = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        remedy = f"`MLFLOW_TRACKING_URI={location.command_address} {command}` restores it"
        raise StoreError(f"the experiment {experiment.name} was deleted in {location.name}", remedy)
    return str(experiment.experiment_id)
