"""Checkpoints: what an interrupted training run resumes from, and which process holds it.

They live outside DVC's outputs (DVC deletes those before a stage runs again), under the real repository's root, and are
named by a fingerprint of settings, data and code, so that a changed experiment never resumes from a stale state.
"""

import hashlib
import io
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout

from pipeline.artifacts.code_digest import code_digest
from pipeline.artifacts.dvc_lock import read_lock
from pipeline.artifacts.history import history_path
from pipeline.artifacts.weights import read_description, weights_path
from pipeline.lm.settings import Settings
from pipeline.project.console import UserError, say
from pipeline.project.files import CHECKPOINTS, atomic_write, project_root
from pipeline.project.locks import Lock

DIGEST_BYTES = hashlib.sha256().digest_size
CODE = Path(__file__).parents[1] / "lm"  # everything that decides a number


def fingerprint(settings: Settings, corpus_fingerprint: str) -> str:
    """Identifies what a trained model depends on: its settings, the corpus, the code; 16 hexadecimal digits."""
    import torch

    digest = hashlib.sha256()
    digest.update(json.dumps(settings.essentials(), sort_keys=True).encode())
    digest.update(corpus_fingerprint.encode())
    digest.update(torch.__version__.encode())
    digest.update(code_digest(CODE).encode())
    return digest.hexdigest()[:16]


def checkpoint_path(name: str, fingerprint: str) -> Path:
    return _folder() / f"{name}-{fingerprint}.pt"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a training run's state, preceded by its SHA-256. The previous checkpoint stays until this one is complete.

    Raises OSError.
    """
    import torch

    buffer = io.BytesIO()  # if it writes to the file itself, PyTorch hides why the disk refused
    torch.save(state, buffer)
    with atomic_write(path, "wb") as file:
        file.write(hashlib.sha256(buffer.getbuffer()).digest())
        file.write(buffer.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """A training run's state, as data and never as code, or None if there is none. Raises UserError if damaged."""
    import torch

    if not path.exists():
        return None
    digest, content = (data := memoryview(path.read_bytes()))[:DIGEST_BYTES], data[DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise UserError(f"{path} is damaged: delete it, and the training starts from epoch 1")
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def training_id(checkpoint: Path, *, make: bool = False) -> str | None:
    """Distinguishes a training run from others with the same settings, on any machine: drawn at its start and kept next
    to its checkpoint. None if there is none and none is to be made. Raises UserError if it is damaged.
    """
    path = checkpoint.with_suffix(".id")
    if make and not path.exists():
        with atomic_write(path) as file:
            file.write(secrets.token_hex(8))
    if not path.exists():
        return None
    if not re.fullmatch(rb"[0-9a-f]{16}", drawn := path.read_bytes()):
        raise UserError(f"{path} is damaged: delete it, and the training run gets a new one")
    return drawn.decode()


def release(model: str) -> None:
    """Delete a model's checkpoint once DVC has recorded its results, which can be restored from then on.

    Until then a finished training run can be finished again within seconds.
    """
    stage = read_lock().get(f"train@{model}")
    if stage and stage.made(weights_path(model)) and stage.made(history_path(model)):
        delete_checkpoint(checkpoint_path(model, read_description(weights_path(model)).fingerprint))


def delete_checkpoint(path: Path) -> None:
    """Delete a checkpoint and what is kept next to it."""
    for file in (path, path.with_suffix(".id"), *path.parent.glob(f"{path.stem}.*.features")):
        file.unlink(missing_ok=True)


def delete_checkpoints(prefix: str) -> None:
    """Delete all checkpoints whose names start with a prefix, and what is kept next to them."""
    for path in _folder().glob(f"{prefix}*"):
        path.unlink(missing_ok=True)


class InUseError(UserError):
    """Another process of this machine holds a checkpoint."""


@contextmanager
def exclusive(path: Path, *, waiting: str = "") -> Iterator[None]:
    """Hold a checkpoint for this process alone.

    waiting: who waits until another process lets go of it, and says so; if it is empty, that raises InUseError
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".holder")
    lock = Lock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        busy = f"process {holder.read_text() if holder.exists() else 'another one'} is training this very model"
        if not waiting:
            raise InUseError(f"{busy}: wait for it, or stop it") from None
        say(f"{waiting}: {busy}; waiting for it")
        lock.acquire()
    try:
        holder.write_text(str(os.getpid()))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def is_being_trained(model: str) -> bool:
    """Whether a process holds one of the model's checkpoints."""
    for path in _folder().glob(f"{model}-*.lock"):
        try:
            with Lock(path, timeout=0):
                pass
        except Timeout:
            return True
    return False


def _folder() -> Path:
    return project_root() / CHECKPOINTS
