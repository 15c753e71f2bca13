"""Waiting for another DVC process that uses the same files, where DVC itself would give up."""

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
from dvc.exceptions import DvcException  # type: ignore[import-untyped]
from dvc.lock import LockError  # type: ignore[import-untyped]
from dvc.repo import Repo  # type: ignore[import-untyped]

from pipeline.project.console import say

T = TypeVar("T")

SECONDS_BETWEEN_CHECKS = 1.0


def retry_while_locked(repo: Repo, action: Callable[[], T]) -> T:
    """Do something with DVC. If another process holds a lock on a file, wait for it and start again."""
    reported: set[int] = set()
    while True:
        try:
            return action()
        except DvcException as error:
            messages = " ".join(str(cause) for cause in causes(error) if isinstance(cause, LockError))
            blockers = {int(pid) for pid in re.findall(r"\(PID (\d+)\)", messages)}
            if not blockers:
                raise
        if new := {pid for pid in blockers if _is_running_dvc(pid)} - reported:
            say(f"waiting for process {', '.join(map(str, sorted(new)))}, which runs a stage of this pipeline")
            reported |= new
        time.sleep(SECONDS_BETWEEN_CHECKS)
        while _holders(repo) & blockers:
            drop_stale_locks(repo)
            time.sleep(SECONDS_BETWEEN_CHECKS)


def causes(error: BaseException) -> list[BaseException]:
    """An error and the errors that caused it."""
    return [error, *(causes(error.__cause__) if error.__cause__ else [])]


def drop_stale_locks(repo: Repo) -> None:
    """Drop the locks of processes that have ended.

    DVC believes that they are alive if their ids are in use: by a zombie, or by another program.
    """
    with repo.lock:  # every process that writes the file holds it
        if dead := {pid for pid in _holders(repo) if not _is_running_dvc(pid)}:
            held = json.loads(_lock_file(repo).read_text())
            held["write"] = {path: one for path, one in held["write"].items() if one["pid"] not in dead}
            held["read"] = {
                path: [one for one in readers if one["pid"] not in dead] for path, readers in held["read"].items()
            }
            _lock_file(repo).write_text(json.dumps(held))


def _holders(repo: Repo) -> set[int]:
    try:
        return {int(pid) for pid in re.findall(r'"pid": (\d+)', _lock_file(repo).read_text())}
    except FileNotFoundError:
        return set()


def _lock_file(repo: Repo) -> Path:
    return Path(repo.tmp_dir) / "rwlock"


def _is_running_dvc(pid: int) -> bool:
    """Whether this is another process that is running DVC."""
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return pid != os.getpid() and any("dvc" in word or word == "pipeline.repro" for word in words)
