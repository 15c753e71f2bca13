"""`dvc repro`, and what it takes for that to go well: its cache, the corpus, and patience with others at work."""

import logging
import os
import re
import subprocess
import sys
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any

from dvc.cli import DvcParserError, parse_args  # type: ignore[import-untyped]
from dvc.exceptions import DvcException  # type: ignore[import-untyped]
from dvc.logger import set_loggers_level  # type: ignore[import-untyped]
from dvc.repo import Repo, lock_repo  # type: ignore[import-untyped]
from dvc.stage import Stage  # type: ignore[import-untyped]
from dvc.stage.exceptions import StageCmdFailedError  # type: ignore[import-untyped]

from pipeline.artifacts.dvc_waiting import causes, patiently
from pipeline.artifacts.reference import restore_kept
from pipeline.corpus.sources import any_answers
from pipeline.project.console import UserError, say
from pipeline.project.files import PARAMS, PROCESSED, RAW
from pipeline.settings.params import load_params

TEXT_STAGES = ("download", "preprocess")
CONTINUE = "fix that, then run the same command again"
INTERRUPTED = re.compile(r"exited with (130|-2|-15)$")


def reproduce(arguments: list[str], jobs: int) -> None:
    """`dvc repro` with these arguments, after training so many models at a time. Raises UserError."""
    try:
        _reproduce(parse_args(["--wait-for-lock", "repro", *arguments]), jobs)
    except DvcException as error:
        raise _explained(error) from None
    except DvcParserError:  # which has been told
        sys.exit(2)


def _reproduce(given: Namespace, jobs: int) -> None:
    command = given.func(given)
    options = command._common_kwargs | command._repro_kwargs
    with command.repo as repo:
        repo.scm_context.quiet = True  # no advice on what to do with git
        restore_kept(repo)
        _refill_cache(repo)
        _drop_empty_text()
        without_text = False
        lacks_text = any(out.changed_cache() for out in _cached_outs(repo, *TEXT_STAGES))
        if lacks_text and not options["dry"] and not any(map(_needs_text, _stale(repo, options))):
            options["allow_missing"] = without_text = not _fetch_text(repo)
        elif jobs > 1:
            patiently(repo, lambda: repo.reproduce("preprocess"))
            stale = [stage.addressing for stage in _stale(repo, options)]
            _side_by_side([stage for stage in stale if stage.startswith("train@")], jobs)
        patiently(repo, lambda: repo.reproduce(**options))
    if without_text:
        corpus = load_params().preprocess.corpus
        say(f"no source in {PARAMS} delivers the text of {corpus}, which training and evaluation need;")
        say("nothing has to be trained or evaluated now: report, `make ui`, `score` and `generate` work without it")


def _refill_cache(repo: Repo) -> None:
    """Put into DVC's cache what it lacks of the results that are here as they were recorded."""
    with lock_repo(repo):
        for out in _cached_outs(repo):
            if out.hash_info and out.exists and out.changed_cache() and not out.changed_checksum():
                out.commit()


def _cached_outs(repo: Repo, *stages: str) -> list[Any]:
    """The outputs of these stages, or of all, that DVC keeps in its cache."""
    chosen = [stage for stage in repo.index.stages if not stages or stage.name in stages]
    return [out for stage in chosen for out in stage.outs if out.use_cache]


def _stale(repo: Repo, options: dict[str, Any]) -> list[Stage]:
    """The stages that DVC would run if it had the text, but for those that wait for the results of these."""

    def changed(stage: Stage, upstream: list[Stage], force: bool, **_: object) -> Stage | None:
        return stage if force or stage.changed(True, upstream) else None

    with set_loggers_level(logging.CRITICAL):
        return patiently(repo, lambda: repo.reproduce(**options, repro_fn=changed))


def _needs_text(stage: Stage) -> bool:
    return stage.name in TEXT_STAGES or any(Path(dep.def_path) in (RAW, PROCESSED) for dep in stage.deps)


def _fetch_text(repo: Repo) -> bool:
    """Whether a source delivers the text, which is then there."""
    if not any_answers(load_params().download):
        return False
    try:
        patiently(repo, lambda: repo.reproduce("preprocess"))
    except DvcException as error:
        _drop_empty_text()
        if RAW.exists() or not isinstance(_explained(error), UserError):
            raise
        return False
    return True


def _drop_empty_text() -> None:
    """Remove the folder that a download leaves empty if it fails: it would count as an edit."""
    with suppress(OSError):
        RAW.rmdir()


def _side_by_side(stages: list[str], jobs: int) -> None:
    """Run stages, so many at a time, each with its share of the cores. Raises UserError when any of them fails."""
    if not stages:
        return
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    this = [sys.executable, "-m", "pipeline.repro", "--single-item"]
    with subprocess.Popen(
        ["xargs", "-n", "1", "-P", str(jobs), *this],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,  # no terminal, on which their bars would collide
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdin
        assert running.stdout
        running.stdin.write("\n".join(stages))
        running.stdin.close()
        for line in running.stdout:
            say(line.rstrip())
    if running.returncode:
        raise UserError(f"not all models were trained, see above: {CONTINUE}")


def _explained(error: DvcException) -> BaseException:
    """What to raise for what DVC refuses: its own words, unless a stage has said why."""
    words = [" ".join(str(cause).split()) for cause in causes(error)]
    if INTERRUPTED.search(words[-1]):
        return KeyboardInterrupt()
    if isinstance(causes(error)[-1], StageCmdFailedError):
        return UserError(f"{words[0]}, see above: {CONTINUE}")
    return UserError(f"DVC: {': '.join(words)}")
