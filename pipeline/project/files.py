"""Where the project's files live, and how they are written and recognised."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
MODELS = Path("results/models")
REPORT = Path("results/report")
SWEEPS = Path("results/sweeps")


def project_root() -> Path:
    """The real repository, also from the throw-away copy in which `dvc exp run --temp` and `--queue` run a stage.

    DVC sets `DVC_ROOT` for its stages. Whatever must outlive the copy (checkpoints, MLflow's store) goes here.
    """
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a file for writing that appears under its name only when complete, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    encoding = None if "b" in mode else "utf-8"
    try:
        with open(partial, mode, encoding=encoding, newline=None if "b" in mode else "\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
