"""The SQLite file of a store: made whole or not at all, looked at before MLflow is, brought along when it moved."""

import os
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipeline.project.files import project_root
from pipeline.tracking.faults import REBUILT, StoreError
from pipeline.tracking.location import Location

PATIENCE_SECONDS = 20.0  # with another process that writes; as long as MLflow's own

# Where MLflow keeps addresses of artifacts.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def prepare_database(location: Location) -> None:
    """Make the file where there is none, and see to it that MLflow can work with it.

    One process at a time calls this: several at once would corrupt a fresh database. Raises StoreError where its tables
    are not those of this MLflow, and sqlite3.Error.
    """
    path = location.database
    assert path
    if not path.exists() or path.stat().st_size == 0:
        _create(location, path)
    with closing(_open(path)) as database:
        _check_schema(database, location)
        _bring_along(database, path)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=PATIENCE_SECONDS)


def _create(location: Location, path: Path) -> None:
    """Make the tables under another name first: killed half-way, they could never be opened again."""
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    # A journal belongs to the file that it lay beside: SQLite would undo in the new one what was begun in the old.
    for left in (partial, *(file.with_name(f"{file.name}-journal") for file in (partial, path))):
        left.unlink(missing_ok=True)
    MlflowClient(location.beside(partial.name).address).search_experiments(max_results=1)
    with closing(_open(partial)) as database, database:
        place = f"{location.artifacts}/0"  # MLflow took the working folder, which may be a copy
        database.execute("update experiments set artifact_location = ? where experiment_id = 0", (place,))
    os.replace(partial, path)


def _check_schema(database: sqlite3.Connection, location: Location) -> None:
    """Raises StoreError: MLflow itself tries for minutes, and names one remedy for all."""
    name = location.name
    tables = {table for (table,) in database.execute("select name from sqlite_master where type = 'table'")}
    if not {"alembic_version", "experiments", "runs"} <= tables:
        raise StoreError(f"{name} is not a store of MLflow, or not a whole one", REBUILT, whole=True)
    (version,) = database.execute("select version_num from alembic_version").fetchone() or ("none",)
    newest, known = _schemas()
    if version == newest:
        return
    if version in known:
        upgrade = f"`mlflow db upgrade {location.command_address}` brings them up to date"
        raise StoreError(f"{name} has the tables of an older MLflow ({version})", upgrade)
    remedy = f"install that one again, or {REBUILT}"
    raise StoreError(f"{shlex.quote(name)} has the tables of a newer MLflow ({version})", remedy, whole=True)


def _schemas() -> tuple[str | None, set[str]]:
    """The schema that this MLflow works with, and all that it knows."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
    return scripts.get_current_head(), {script.revision for script in scripts.walk_revisions()}


def _bring_along(database: sqlite3.Connection, path: Path) -> None:
    """Give artifacts the addresses that they have today: MLflow's are absolute, those of the folder of before.

    Otherwise a copied project writes into the one that it was copied from, and a moved one makes the old folder again.
    """
    new = (path.parent / "mlruns").as_uri()
    rows = database.execute("select experiment_id, artifact_location from experiments").fetchall()
    for old in {old for number, address in rows if (old := _left_behind(str(number), address or "", path))}:
        with database:
            for table, column in ADDRESSES:
                database.execute(
                    f"update {table} set {column} = :new || substr({column}, length(:old) + 1)"
                    f" where {column} = :old or substr({column}, 1, length(:old) + 1) = :old || '/'",
                    {"old": old, "new": new},
                )


def _left_behind(experiment: str, address: str, path: Path) -> str | None:
    """The `mlruns` of an experiment's address, where that is one which this database left; None if it is not.

    Ours end in `mlruns`, those that MLflow chooses in `mlruns/ID`. A place of another name, or one with files and
    no such database beside it, was chosen by somebody.
    """
    ours = address.endswith("/mlruns")
    old = address if ours else address.removesuffix(f"/{experiment}")
    if not old.endswith("/mlruns") or not old.startswith(("file:///", "/")):
        return None
    folder = Path(url2pathname(urlsplit(old).path) if old.startswith("file:") else old)
    if folder.parent.resolve() == path.parent.resolve():
        return None
    moved, copied = not folder.exists(), (folder.parent / path.name).exists()
    return old if moved or copied or (ours and path.is_relative_to(project_root())) else None
