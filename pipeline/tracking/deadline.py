"""Work that must end in time, whatever MLflow's store does: a server that answers drop by drop meets no other limit."""

import concurrent.futures.thread
import threading
from collections.abc import Callable
from typing import TypeVar

from pipeline.project.console import say
from pipeline.tracking.faults import StoreError
from pipeline.tracking.location import locate

T = TypeVar("T")

DEADLINE_SECONDS = 60.0
SECONDS_TO_WAIT_IN_SILENCE = 5.0


def within(work: Callable[[], T]) -> T:
    """The result of `work`. Raises what it raises, and StoreError if it does not end in time.

    In that case it is left to a thread that ends with the process, since nothing in Python can end a thread.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="mlflow, with a deadline", daemon=True)
    thread.start()
    silent = min(SECONDS_TO_WAIT_IN_SILENCE, DEADLINE_SECONDS)
    thread.join(silent)
    if thread.is_alive() and silent < DEADLINE_SECONDS and not locate().database:
        say(f"waiting for {locate().name}, for {DEADLINE_SECONDS:g} seconds at most")
    thread.join(DEADLINE_SECONDS - silent)
    if thread.is_alive():
        threading._register_atexit(_let_go_of_pools)  # type: ignore[attr-defined]
        raise StoreError(f"{locate().name} did not take all in {DEADLINE_SECONDS:g} seconds")
    if errors:
        raise errors[0]
    return results[0]


def _let_go_of_pools() -> None:
    """Keep Python from waiting at exit for the thread pools in which MLflow sends files."""
    concurrent.futures.thread._threads_queues.clear()  # type: ignore[attr-defined]
