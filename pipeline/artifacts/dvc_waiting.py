"""Waiting for another DVC that is at work on the same files, where DVC itself gives up."""

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


def patiently(repo: Repo, action: Callable[[], T]) -> T:
    """Do something with DVC, again from the start as often as another process is in its way, once that has ended."""
    told: set[int] = set()
    while True:
        try:
            return action()
        except DvcException as error:
            refusal = " ".join(str(cause) for cause in causes(error) if isinstance(cause, LockError))
            blockers = {int(pid) for pid in re.findall(r"\(PID (\d+)\)", refusal)}
            if not blockers:
                raise
        if new := {pid for pid in blockers if _is_at_work(pid)} - told:
            say(f"waiting for process {', '.join(map(str, sorted(new)))}, which runs a stage of this pipeline")
            told |= new
        time.sleep(SECONDS_BETWEEN_CHECKS)
        while _holders(repo) & blockers:
            forget_the_dead(repo)
            time.sleep(SECONDS_BETWEEN_CHECKS)


def causes(error: BaseException) -> list[BaseException]:
    """An error and what led to it."""
    return [error, *(causes(error.__cause__) if error.__cause__ else [])]


def forget_the_dead(repo: Repo) -> None:
    """Drop the locks of processes that have ended, which DVC takes for alive if their numbers are in use.

    A zombie's is, and so is one that the system has given to another program.
    """
    with repo.lock:  # which all who write the file hold
        if dead := {pid for pid in _holders(repo) if not _is_at_work(pid)}:
            held = json.loads(_file(repo).read_text())
            held["write"] = {path: one for path, one in held["write"].items() if one["pid"] not in dead}
            held["read"] = {
                path: [one for one in readers if one["pid"] not in dead] for path, readers in held["read"].items()
            }
            _file(repo).write_text(json.dumps(held))


def _holders(repo: Repo) -> set[int]:
    try:
        return {int(pid) for pid in re.findall(r'"pid": (\d+)', _file(repo).read_text())}
    except FileNotFoundError:
        return set()


def _file(repo: Repo) -> Path:
    return Path(repo.tmp_dir) / "rwlock"


def _is_at_work(pid: int) -> bool:
    """Whether a process is another one that runs DVC, and has not ended."""
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return pid != os.getpid() and any("dvc" in word or word == "pipeline.repro" for word in words)
