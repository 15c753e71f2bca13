"""Work that must end in time, whatever MLflow's store does: a server that answers drop by drop meets no other limit."""

import concurrent.futures.thread
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
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
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="mlflow, with a deadline", daemon=True).start()
    if wait([future], SECONDS_TO_WAIT_IN_SILENCE).not_done and not locate().database:
        say(f"waiting for {locate().name}, for {DEADLINE_SECONDS:g} seconds at most")
    if wait([future], DEADLINE_SECONDS - SECONDS_TO_WAIT_IN_SILENCE).not_done:
        # Python would wait at exit for the thread pools in which MLflow sends files.
        threading._register_atexit(concurrent.futures.thread._threads_queues.clear)  # type: ignore[attr-defined]
        raise StoreError(f"{locate().name} did not take all in {DEADLINE_SECONDS:g} seconds")
    return future.result()
