"""Where the project's files live, and how they are written and recognised."""

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

SPLITS = ("train", "valid", "test")

PARAMS = Path("params.yaml")
PARAMS_BASE = Path("params.base.yaml")  # without git, params.yaml as it was before the first recipe
RECIPES = Path("recipes")
SAMPLE = Path("data/sample")
RAW = Path("data/raw")
PROCESSED = Path("data/processed")
CORPUS_METRICS = Path("results/corpus.json")
VALID_PERPLEXITY = Path("results/valid_perplexity.json")
MODELS = Path("results/models")
REPORT = Path("results/report")
SWEEPS = Path("results/sweeps")
REFERENCE = Path("results/reference")
CHECKPOINTS = Path(".checkpoints")

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def project_root() -> Path:
    """The real repository, also from the throw-away copy in which `dvc exp run --temp` and `--queue` run a stage.

    DVC sets `DVC_ROOT` for its stages. Whatever must outlive the copy (checkpoints, MLflow's store) goes here.
    """
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def kept_folders() -> list[Path]:
    """The folders that the project's commands write to, if they exist."""
    folders = [Path(), RAW, PROCESSED, CORPUS_METRICS.parent, REPORT, project_root() / CHECKPOINTS]
    with suppress(OSError):
        folders += [*MODELS.glob("*"), *SWEEPS.glob("*")]
    return [folder for folder in folders if folder.is_dir()]


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a file for writing that appears under its name only when complete, or not at all.

    Raises OSError, which names the folder if its disk is full.

    Until then it is a partial file in the same folder, locked while it is being written: see `clear_partial_files`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_partial_files(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    encoding = None if "b" in mode else "utf-8"
    try:
        with open(_open_locked(partial), mode, encoding=encoding, newline=None if "b" in mode else "\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)  # still locked, so that nobody deletes it
    except OSError as error:
        if error.errno in NO_ROOM and error.filename is None:  # a failed write names no file
            error.filename = str(path.parent)
        raise
    finally:
        partial.unlink(missing_ok=True)


def clear_partial_files(folder: Path) -> None:
    """Delete the partial files that killed writers have left in a folder.

    A running writer, on this machine or on another one that shares the folder, holds a lock on its file, which the
    system releases however it ends. Its process number would not do: another process may get the same one.
    Partial files without a number are not from `atomic_write` and are left alone: MLflow locks its own differently.
    """
    for partial in folder.glob(".*.[0-9]*.partial"):
        with suppress(OSError):  # already gone, in use, not ours to delete, or a file system without locks
            descriptor = os.open(partial, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                partial.unlink()
            finally:
                os.close(descriptor)


def _open_locked(partial: Path) -> int:
    """Open an empty file, locked by this process. Raises OSError."""
    while True:
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(partial)):
                if os.fstat(descriptor).st_size:
                    os.ftruncate(descriptor, 0)
                return descriptor
        except FileNotFoundError:
            pass  # deleted between opening and locking
        os.close(descriptor)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
