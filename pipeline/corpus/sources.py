"""Whether a download is worth a try, which is known within seconds."""

import threading
from concurrent.futures import Future, as_completed
from contextlib import suppress
from pathlib import Path

import requests

from pipeline.corpus.archives import is_archive
from pipeline.settings.schema import Download

PATIENCE = 3.0  # seconds


def any_source_answers(settings: Download) -> bool:
    """Whether any source has something under the right name, here or at its address."""
    answers: list[Future[bool]] = [Future() for _ in settings.sources]
    for source, answer in zip(settings.sources, answers, strict=True):
        place = source if is_archive(source) else f"{source.rstrip('/')}/{settings.files.train.name}"
        # In threads that nobody waits for: no time limit bounds how long a name is looked up.
        threading.Thread(target=_ask, args=(place, answer), daemon=True).start()
    with suppress(TimeoutError):
        return any(answer.result() for answer in as_completed(answers, timeout=PATIENCE))
    return False


def _ask(place: str, answer: Future[bool]) -> None:
    try:
        if place.lower().startswith(("http://", "https://")):
            with requests.get(place, timeout=PATIENCE, stream=True) as response:
                answer.set_result(response.ok)
        else:
            answer.set_result(place.lower().startswith("file:") or Path(place).expanduser().exists())
    except Exception:  # whatever is wrong with it, it does not answer
        answer.set_result(False)
