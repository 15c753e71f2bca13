"""A quick check whether any source of the corpus responds."""

import threading
from concurrent.futures import Future, as_completed
from contextlib import suppress
from pathlib import Path

import requests

from pipeline.corpus.archives import is_archive
from pipeline.settings.schema import Download

TIMEOUT = 3.0  # seconds


def any_source_responds(settings: Download) -> bool:
    """Whether any source has something under the right name, on disk or at its address."""
    answers: list[Future[bool]] = [Future() for _ in settings.sources]
    for source, answer in zip(settings.sources, answers, strict=True):
        place = source if is_archive(source) else f"{source.rstrip('/')}/{settings.files.train.name}"
        # In daemon threads, because no timeout limits the lookup of a host name.
        threading.Thread(target=_ask, args=(place, answer), daemon=True).start()
    with suppress(TimeoutError):
        return any(answer.result() for answer in as_completed(answers, timeout=TIMEOUT))
    return False


def _ask(place: str, answer: Future[bool]) -> None:
    try:
        if place.lower().startswith(("http://", "https://")):
            with requests.get(place, timeout=TIMEOUT, stream=True) as response:
                answer.set_result(response.ok)
        else:
            answer.set_result(place.lower().startswith("file:") or Path(place).expanduser().exists())
    except Exception:  # whatever is wrong, this source does not respond
        answer.set_result(False)
