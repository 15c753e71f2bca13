"""What went wrong with MLflow, in one line: what, where and what to do, and never a secret."""

import errno
import os
import re
import shlex
import sqlite3
from collections.abc import Iterator
from urllib.parse import quote, unquote

from filelock import Timeout

from pipeline.project.console import UserError
from pipeline.tracking.location import UNCLEAR, Location, locate, public_address

REMEDY = "the next stage or `make ui` writes what it lacks"
AGAIN = "then the same command writes what it lacks"  # for commands that are themselves named as the remedy
REBUILT = "move the file away, then `make ui` rebuilds it from results/"
LONGEST = 200  # characters of another program's message

_PRIMARY = 0xFF  # SQLite's extended codes hold the primary one in their lowest byte
_DAMAGED = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_FORBIDDEN = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}


class StoreError(Exception):
    """A fault of MLflow's store with a known cause.

    remedy: what to do before MLflow can be written to again; None if only waiting can help
    whole: whether the remedy also says what will write whatever MLflow lacks
    """

    def __init__(self, what: str, remedy: str | None = None, *, whole: bool = False) -> None:
        super().__init__(f"{what}: {remedy}" if remedy else what)
        self.remedy = remedy
        self.whole = whole


def fault_message(error: Exception, remedy: str = REMEDY) -> str:
    """One line for a fault that leaves MLflow behind the files.

    remedy: what will write whatever it lacks
    """
    fault = diagnose(error)
    if fault.whole:
        return f"MLflow is behind: {fault}"
    return f"MLflow is behind: {fault}{'; ' if fault.remedy else ': '}{remedy}"


def explain(error: Exception) -> str:
    """What went wrong in MLflow and, if known, what to do about it: one line without secrets."""
    return str(diagnose(error))


def diagnose(error: Exception) -> StoreError:
    """The cause of an error raised by MLflow or by what it calls."""
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
    if location.name == UNCLEAR and (location.address.startswith("sqlite") or "://" not in location.address):
        remedy = "set it to a server's address, which starts with http://, or to sqlite:///FILE"
        return StoreError("MLFLOW_TRACKING_URI names no store of MLflow", remedy)
    return StoreError(_without_secrets(error, location))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _database_fault(error: sqlite3.Error, location: Location) -> StoreError | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    name, code = location.name, code & _PRIMARY
    if code in _DAMAGED:
        return StoreError(f"{name} is damaged ({error})", REBUILT, whole=True)
    if code in _LOCKED:
        holder = f"`fuser {shlex.quote(name)}` tells which"
        return StoreError(f"{name} is locked by another program", f"end that program ({holder})")
    if code in _FORBIDDEN:
        return StoreError(f"{name} cannot be written ({error})", "mend the permissions of the file and its folder")
    if code == sqlite3.SQLITE_FULL:
        return StoreError(f"no space is left for {name}", "free some")
    return None


def _system_fault(error: OSError, location: Location) -> StoreError:
    """What the system refused: a file or a connection (errors of requests are OSErrors too)."""
    if isinstance(error, Timeout):
        return StoreError(f"another process holds {error.lock_file}", "wait for it, or end it")
    if url := getattr(getattr(error, "request", None), "url", None):
        return _server_fault(error, url)
    place = error.filename if isinstance(error.filename, str) else location.name
    if error.errno == errno.EFBIG:
        return StoreError(f"{place} may not become larger", "raise the limit of a file's size (`ulimit -f`)")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"no space is left for {place}", "free some")
    if isinstance(error.filename, str) or location.database:
        return StoreError(f"{place}: {error.strerror or type(error).__name__}", "mend that file or its permissions")
    return StoreError(f"{location.name} does not answer")


def _server_fault(error: OSError, url: str) -> StoreError:
    """What came of a request to a server, which may be that of the registry."""
    from requests.utils import get_environ_proxies

    server = public_address(url) or UNCLEAR
    if server == public_address(os.environ.get("MLFLOW_REGISTRY_URI", "")):
        server += " (MLFLOW_REGISTRY_URI)"
    if failed := re.search(r"too many (\d+) error responses", str(error)):
        return StoreError(f"{server} answers with error {failed[1]}", "look into that server's log")
    if proxy := get_environ_proxies(url).get(url.partition(":")[0]):
        through = f"the proxy {public_address(proxy) or 'in its variable'}"
        return StoreError(f"{server} does not answer through {through}", "set no_proxy to reach it directly")
    return StoreError(f"{server} does not answer")


def _without_secrets(error: Exception, location: Location) -> str:
    """The first line of an error's text; where a part of a secret may stand in it, only what kind of error it is."""
    text = str(error)
    if any(_may_show(text, secret) for secret in location.secrets if secret):
        return f"{location.name}: {type(error).__name__}"
    return (text.strip().splitlines() or [type(error).__name__])[0][:LONGEST]


def _may_show(text: str, secret: str) -> bool:
    """Whether a word of a secret stands in a text, in whatever way it is quoted there."""
    for form in (secret, unquote(secret), quote(secret)):
        words = re.findall(r"[A-Za-z0-9]+", form)
        if not words or any(word.lower() in text.lower() for word in words):
            return True
    return False
