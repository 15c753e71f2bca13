"""What went wrong with MLflow, in one line: what, where and what to do, and never a secret."""

import os
import re
import shlex
import sqlite3
from collections.abc import Iterator

from filelock import Timeout

from pipeline.project.console import UserError, refused
from pipeline.tracking.location import UNCLEAR, Location, has_secrets, locate, public_address

REMEDY = "the next stage or `make ui` writes what is missing"
AGAIN = "run the same command again to write what is missing"  # for commands that are the remedy themselves
REBUILT = "move the file away, then `make ui` rebuilds it from results/"
LONGEST = 200  # characters of another program's message

_DAMAGED = ("{name} is damaged ({error})", REBUILT)
_LOCKED = ("{name} is locked by another program", "stop that program (`fuser {quoted}` shows which)")
_FORBIDDEN = ("{name} cannot be written ({error})", "fix the permissions of the file and its folder")
_BY_SQLITE = {
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_READONLY: _FORBIDDEN,
    sqlite3.SQLITE_CANTOPEN: _FORBIDDEN,
    sqlite3.SQLITE_PERM: _FORBIDDEN,
    sqlite3.SQLITE_AUTH: _FORBIDDEN,
    sqlite3.SQLITE_FULL: ("no space is left for {name}", "free some"),
}


class StoreError(Exception):
    """A fault of MLflow's store with a known cause.

    remedy: what to do before MLflow can be written to again; empty if only waiting can help
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what}: {remedy}" if remedy else what)
        self.remedy = remedy


def fault_message(error: Exception, remedy: str = REMEDY) -> str:
    """One line for a fault that leaves MLflow behind the files.

    remedy: what will write whatever is missing, unless the fault's own remedy does
    """
    fault = diagnose(error)
    if REBUILT in fault.remedy:
        return f"MLflow is behind: {fault}"
    return f"MLflow is behind: {fault}{'; ' if fault.remedy else ': '}{remedy}"


def explain(error: Exception) -> str:
    """What went wrong in MLflow and, if known, what to do about it: one line without secrets."""
    return str(diagnose(error))


def diagnose(error: Exception) -> StoreError:
    """The cause of an error raised by MLflow or by the libraries it calls."""
    location = locate()
    for cause in _causes(error):
        if isinstance(cause, StoreError):
            return cause
        if isinstance(cause, UserError):
            return StoreError(str(cause))
        if isinstance(cause, sqlite3.Error) and (fault := _database_fault(cause, location)):
            return fault
        if isinstance(cause, OSError):
            return _system_fault(cause, location)
    if variable := _names_no_store(str(error), location):
        remedy = "set it to a server's address, which starts with http://, or to sqlite:///FILE"
        return StoreError(f"{variable} is not an MLflow store", remedy)
    if has_secrets():  # which the text may contain, in any spelling
        return StoreError(f"{location.name}: {getattr(error, 'error_code', type(error).__name__)}")
    return StoreError((str(error).strip().splitlines() or [type(error).__name__])[0][:LONGEST])


def _names_no_store(text: str, location: Location) -> str | None:
    """The variable that holds no store's address, if one does; text: MLflow's, which may refuse the address."""
    if refused_address := re.search(r"(?:unsupported|the store with) URI:? '(.*?)'", text):
        return f"MLFLOW_{'REGISTRY' if refused_address[1] == os.environ.get('MLFLOW_REGISTRY_URI') else 'TRACKING'}_URI"
    if location.name == UNCLEAR and (location.address.startswith("sqlite") or "://" not in location.address):
        return "MLFLOW_TRACKING_URI"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _database_fault(error: sqlite3.Error, location: Location) -> StoreError | None:
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the lowest byte of SQLite's extended codes
    words = {"name": location.name, "quoted": shlex.quote(location.name), "error": error}
    return StoreError(*(part.format(**words) for part in _BY_SQLITE[primary])) if primary in _BY_SQLITE else None


def _system_fault(error: OSError, location: Location) -> StoreError:
    """What the system refused: a file or a connection (errors of requests are OSErrors too)."""
    if isinstance(error, Timeout):
        return StoreError(f"another process holds {error.lock_file}", "wait for it, or stop it")
    if url := getattr(getattr(error, "request", None), "url", None):
        return _server_fault(error, url)
    if error.filename or location.database:
        return StoreError(*refused(error, location.name))
    return StoreError(f"{location.name} does not answer")


def _server_fault(error: OSError, url: str) -> StoreError:
    """Why a request to a server failed, which may be the registry's."""
    from requests.utils import get_environ_proxies

    server = public_address(url) or UNCLEAR
    if server == public_address(os.environ.get("MLFLOW_REGISTRY_URI", "")):
        server += " (MLFLOW_REGISTRY_URI)"
    if failed := re.search(r"too many (\d+) error responses", str(error)):
        return StoreError(f"{server} answers with error {failed[1]}", "look at that server's log")
    if proxy := get_environ_proxies(url).get(url.partition(":")[0]):
        through = f"the proxy {public_address(proxy) or 'of the environment'}"
        return StoreError(f"{server} does not answer through {through}", "set no_proxy to reach it directly")
    return StoreError(f"{server} does not answer")
