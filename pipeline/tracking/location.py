"""Where MLflow's store is: the project's own database, or what MLFLOW_TRACKING_URI names. Only resolved here."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.project.files import project_root

DATABASE = "mlflow.db"
THIS_MACHINE = "localhost,127.0.0.1,::1"
UNCLEAR = "the server in MLFLOW_TRACKING_URI"

# An optional login, host and port, then a path. With another @ or a space, it would not be clear where they end.
_ADDRESS = re.compile(
    r"([\w+.-]+://)([^@/?#\s\x00-\x20]*@)?(([\w.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?)([/?#][^@\s\x00-\x20]*)?",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True)
class Location:
    """A store, relative to the repository's current root: `dvc exp run --temp` works in a temporary copy.

    address: for MLflow
    database: the file of a SQLite store
    name: for messages: a file, or a server's address without secrets
    """

    address: str
    database: Path | None
    name: str

    @property
    def artifacts(self) -> str | None:
        """The address of the artifacts' folder, next to the database; a server has its own."""
        return (self.database.parent / "mlruns").as_uri() if self.database else None

    @property
    def command_address(self) -> str:
        """The store's address for a command typed in the project's root, without secrets."""
        if self.database is None:
            return '"$MLFLOW_TRACKING_URI"'
        if self.database.parent == project_root():  # the path may have characters that need quotes
            return f"sqlite:///{self.database.name}"
        return f"'{self.address}'"


def locate() -> Location:
    """The current store. An address that cannot be parsed is left for MLflow to refuse."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    address, root = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DATABASE}", project_root()
    with suppress(ArgumentError, ValueError):
        url = make_url(address)
        if address.startswith("sqlite") and url.database and not url.database.startswith((":memory:", "file:")):
            path = Path(os.path.normpath(root / url.database))
            name = path.relative_to(root) if path.is_relative_to(root) else path
            return Location(file_address(path, dict(url.query)), path, str(name))
    return Location(address, None, public_address(address) or UNCLEAR)


def file_address(path: Path, query: dict | None = None) -> str:
    """The address of a SQLite file, whatever characters its path has."""
    from sqlalchemy import URL

    url = URL.create("sqlite", database=str(path), query=query or {}).render_as_string()
    # For an address that starts with `sqlite:`, MLflow would create the folder under its quoted name.
    return url.replace("sqlite:", "sqlite+pysqlite:", 1) if "%" in url else url


def public_address(address: str) -> str | None:
    """Scheme, host and port of an address; None if they are not clear."""
    found = _ADDRESS.fullmatch(address)
    return f"{found[1]}{found[3]}" if found else None


def has_secrets() -> bool:
    """Whether the environment may hold any: in a variable for them, or in an address, as login, query or fragment."""
    given = any(os.environ.get(f"MLFLOW_TRACKING_{secret}") for secret in ("PASSWORD", "TOKEN"))
    addresses = [os.environ.get(f"MLFLOW_{store}_URI", "") for store in ("TRACKING", "REGISTRY")]
    return given or any(
        set(address) & set("@?#") or not (address.startswith("sqlite") or public_address(address))
        for address in filter(None, addresses)
    )


def bypass_proxy_for_this_machine() -> None:
    """Send requests to this machine directly: a proxy would look for the server on its own machine."""
    excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if excepted != "*" and THIS_MACHINE not in excepted:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{excepted},{THIS_MACHINE}".lstrip(",")
