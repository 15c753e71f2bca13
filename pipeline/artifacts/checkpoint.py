"""Checkpoints: the state that an interrupted training run resumes from, and a lock on it.

They are not among DVC's outputs (DVC deletes those before a stage runs again) but under the real repository's root, and
are named by a fingerprint of settings, data and code, so that a changed experiment never resumes from stale state.
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


def checkpoint_folder() -> Path:
    return project_root() / CHECKPOINTS


def checkpoint_path(name: str, fingerprint: str) -> Path:
    return checkpoint_folder() / f"{name}-{fingerprint}.pt"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a training run's state, preceded by its SHA-256. Replaces the previous checkpoint only once it is complete.

    Raises OSError.
    """
    import torch

    buffer = io.BytesIO()  # when writing to a file itself, PyTorch hides the system's error
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


def training_id(checkpoint: Path, *, create: bool = False) -> str | None:
    """Distinguishes a training run from others with the same settings, on any machine: drawn at random when it starts,
    and stored next to its checkpoint. None if there is none and `create` is false. Raises UserError if it is damaged.
    """
    path = checkpoint.with_suffix(".id")
    if create and not path.exists():
        with atomic_write(path) as file:
            file.write(secrets.token_hex(8))
    if not path.exists():
        return None
    if not re.fullmatch(rb"[0-9a-f]{16}", drawn := path.read_bytes()):
        raise UserError(f"{path} is damaged: delete it, and the training run gets a new one")
    return drawn.decode()


def release(model: str) -> None:
    """Delete a model's checkpoint once DVC has recorded its results, and can restore them.

    Until then, the checkpoint of a finished training run gives its results again within seconds.
    """
    stage = read_lock().get(f"train@{model}")
    if stage and stage.made(weights_path(model)) and stage.made(history_path(model)):
        delete_checkpoint(checkpoint_path(model, read_description(weights_path(model)).fingerprint))


def delete_checkpoint(path: Path) -> None:
    """Delete a checkpoint and the files that belong to it."""
    for file in (path, path.with_suffix(".id"), *path.parent.glob(f"{path.stem}.*.features")):
        file.unlink(missing_ok=True)


def delete_checkpoints(prefix: str) -> None:
    """Delete all checkpoints whose names start with a prefix, and the files that belong to them."""
    for path in checkpoint_folder().glob(f"{prefix}*"):
        path.unlink(missing_ok=True)


@contextmanager
def exclusive(path: Path, *, waiting: str = "") -> Iterator[None]:
    """Lock a checkpoint for this process.

    waiting: if another process holds it, wait and print a message that starts with this; if empty, raise UserError
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".holder")
    lock = Lock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        other = f"process {holder.read_text()}" if holder.exists() else "another process"
        busy = f"{other} is already training this model"
        if not waiting:
            raise UserError(f"{busy}: wait for it, or stop it") from None
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
    for path in checkpoint_folder().glob(f"{model}-*.lock"):
        try:
            with Lock(path, timeout=0):
                pass
        except Timeout:
            return True
    return False
