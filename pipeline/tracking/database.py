"""The SQLite file of a store: created completely or not at all, checked before MLflow opens it; updated if moved."""

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from pipeline.project.files import project_root
from pipeline.tracking.faults import REBUILT, StoreError
from pipeline.tracking.location import Location, file_address

PATIENCE_SECONDS = 20.0  # with another process that is writing; the same as MLflow's

# The columns in which MLflow keeps addresses of artifacts.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def prepare_database(location: Location) -> None:
    """Create the file if there is none, and make sure that MLflow can work with it.

    Only one process at a time may call this: several would corrupt a new database. Raises StoreError if its tables are
    not those of this MLflow, and sqlite3.Error.
    """
    path = location.database
    assert path
    if path.exists() and not path.is_file():  # a folder, or a device, which root would replace
        raise StoreError(f"{location.name} is not a file", "move it away, or set MLFLOW_TRACKING_URI to another")
    if not path.exists() or path.stat().st_size == 0:
        _create(path)
    with closing(_open(path)) as database:
        _check_schema(database, location)
        _update_addresses(database, path)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=PATIENCE_SECONDS)


def _create(path: Path) -> None:
    """Create the tables under another name first: a half-made database could never be opened again."""
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    # SQLite would apply a journal of an earlier file to the new one.
    for left in (partial, *(file.with_name(f"{file.name}-journal") for file in (partial, path))):
        left.unlink(missing_ok=True)
    MlflowClient(file_address(partial)).search_experiments(max_results=1)
    os.replace(partial, path)


def _check_schema(database: sqlite3.Connection, location: Location) -> None:
    """Raises StoreError: MLflow itself would retry for minutes, and suggest the same remedy for everything."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    name = location.name
    tables = {table for (table,) in database.execute("select name from sqlite_master where type = 'table'")}
    complete = {"alembic_version", "experiments", "runs"} <= tables
    if not complete or not (found := database.execute("select version_num from alembic_version").fetchone()):
        raise StoreError(f"{name} is not an MLflow store, or not a complete one", REBUILT)
    version = found[0]
    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
    if version == scripts.get_current_head():
        return
    if version in {script.revision for script in scripts.walk_revisions()}:
        upgrade = f"`mlflow db upgrade {location.command_address}` updates them"
        raise StoreError(f"{name} has the tables of an older MLflow ({version})", upgrade)
    raise StoreError(f"{name} has the tables of a newer MLflow ({version})", f"install that MLflow again, or {REBUILT}")


def _update_addresses(database: sqlite3.Connection, path: Path) -> None:
    """Update the addresses of artifacts, which MLflow keeps as absolute paths, to the project's current folder.

    Otherwise a copied project would write into the original, and a moved one would create its old folder again.
    """
    new = (path.parent / "mlruns").as_uri()
    addresses = database.execute("select artifact_location from experiments").fetchall()
    for old in {old for (address,) in addresses if (old := _outdated_folder(address or "", path))}:
        with database:
            for table, column in ADDRESSES:
                database.execute(
                    f"update {table} set {column} = :new || substr({column}, length(:old) + 1)"
                    f" where {column} = :old or substr({column}, 1, length(:old) + 1) = :old || '/'",
                    {"old": old, "new": new},
                )


def _outdated_folder(address: str, path: Path) -> str | None:
    """The `mlruns` folder in an experiment's address if this database was moved or copied away from it; else None.

    Our addresses end in `mlruns`, those that MLflow chooses in `mlruns/ID`. If a database outside the project names an
    existing folder without such a database next to it, a person chose that folder.
    """
    if not (found := re.fullmatch(r"((file://)?/.*/mlruns)(/\d+)?", address)):
        return None
    folder = Path(unquote(found[1].removeprefix("file://")) if found[2] else found[1])
    if folder.parent.resolve() == path.parent.resolve():
        return None
    moved, copied = not folder.exists(), (folder.parent / path.name).exists()
    return found[1] if moved or copied or (not found[3] and path.is_relative_to(project_root())) else None
