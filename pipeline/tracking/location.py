"""Where MLflow's store is: the project's own database, or what MLFLOW_TRACKING_URI names. Only resolved here."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.project.files import project_root

DATABASE = "mlflow.db"
THIS_MACHINE = "localhost,127.0.0.1,::1"
UNCLEAR = "the server that MLFLOW_TRACKING_URI names"


@dataclass(frozen=True)
class Location:
    """A store, relative to the repository's current root: `dvc exp run --temp` works in a temporary copy.

    address: as MLflow takes it
    database: the file of a SQLite store
    name: for messages: a file, or a server's address without secrets
    secrets: parts of the address that must never be shown
    """

    address: str
    database: Path | None
    name: str
    secrets: tuple[str, ...] = ()

    @property
    def artifacts(self) -> str | None:
        """The address of the artifacts' folder, next to the database; a server has its own."""
        return (self.database.parent / "mlruns").as_uri() if self.database else None

    def beside(self, name: str) -> "Location":
        """Another SQLite file in the same folder."""
        assert self.database
        return _file(self.database.with_name(name), [])

    @property
    def command_address(self) -> str:
        """The store's address for a command typed in the project's root, without secrets."""
        if self.database is None:
            return '"$MLFLOW_TRACKING_URI"'
        if self.database.parent == project_root():  # whatever letters the path has
            return f"sqlite:///{self.database.name}"
        return f"'{self.address}'"


def locate() -> Location:
    """The current store. An address that cannot be parsed is left for MLflow to refuse."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    secrets = [os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("PASSWORD", "TOKEN")]
    if registry := os.environ.get("MLFLOW_REGISTRY_URI", ""):
        secrets += _secrets(registry, readable=public_address(registry) is not None)
    if not address:
        return _file(project_root() / DATABASE, secrets)
    if address.startswith("sqlite"):
        return _named_file(address, secrets)
    name = public_address(address)
    return Location(address, None, name or UNCLEAR, (*secrets, *_secrets(address, readable=name is not None)))


def reach_this_machine_directly() -> None:
    """Keep what is addressed to this machine from any proxy: that would look for it on its own."""
    excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if excepted != "*" and THIS_MACHINE not in excepted:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{excepted},{THIS_MACHINE}".lstrip(",")


def public_address(address: str) -> str | None:
    """Scheme, host and port of an address; None if there is any doubt about what they are.

    A slash or a space in a password would make a parser find the end of the host elsewhere.
    """
    try:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return None
    login, _, host = parts.netloc.rpartition("@")
    if re.search(r"[\s\x00-\x20]", address) or "@" in login + parts.path + parts.query + parts.fragment:
        return None
    if not parts.scheme or not re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?", host):
        return None
    return f"{parts.scheme}://{host.partition(':')[0] if host[0] != '[' else host.partition(']')[0] + ']'}{port}"


def _secrets(address: str, *, readable: bool) -> list[str]:
    if not readable:
        return [address]
    parts = urlsplit(address)
    return [parts.password or parts.username or "", parts.query, parts.fragment]


def file_address(path: Path, query: dict | None = None) -> str:
    """The address of a SQLite file, whatever letters its path has."""
    from sqlalchemy import URL

    url = URL.create("sqlite", database=str(path), query=query or {}).render_as_string()
    # For an address with `sqlite:` MLflow would create the folder, under its quoted name.
    return url.replace("sqlite:", "sqlite+pysqlite:", 1) if "%" in url else url


def _file(path: Path, secrets: list[str], query: dict | None = None) -> Location:
    root = project_root()
    name = path.relative_to(root) if path.is_relative_to(root) else path
    return Location(file_address(path, query), path, str(name), tuple(secrets))


def _named_file(address: str, secrets: list[str]) -> Location:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        return Location(address, None, UNCLEAR, (*secrets, address))
    if not url.database or url.database.startswith((":memory:", "file:")):
        return Location(address, None, UNCLEAR, tuple(secrets))
    path = Path(os.path.normpath(project_root() / url.database))
    return _file(path, secrets, dict(url.query))
