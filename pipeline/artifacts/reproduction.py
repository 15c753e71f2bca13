"""`dvc repro` with a filled cache, without the corpus where it is not needed, and waiting for other processes."""

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

from pipeline.artifacts.dvc_waiting import causes, retry_while_locked
from pipeline.artifacts.reference import kept_run, restore_kept, take_kept_run
from pipeline.corpus.sources import any_source_responds
from pipeline.project.console import UserError, say
from pipeline.project.files import PARAMS, PROCESSED, RAW, REFERENCE
from pipeline.settings.params import load_params

TEXT_STAGES = ("download", "preprocess")
CONTINUE = "fix that, then run the same command again"
INTERRUPTED = re.compile(r"exited with (130|-2|-15)$")


def reproduce(arguments: list[str], jobs: int) -> None:
    """`dvc repro` with these arguments, training up to `jobs` models at a time. Raises UserError."""
    try:
        _reproduce(parse_args(["--wait-for-lock", "repro", *arguments]), jobs)
    except DvcException as error:
        raise _explained(error) from None
    except DvcParserError:  # DVC has printed it
        sys.exit(2)


def _reproduce(given: Namespace, jobs: int) -> None:
    command = given.func(given)
    options = command._common_kwargs | command._repro_kwargs
    with command.repo as repo:
        repo.scm_context.quiet = True  # no hints about git commands
        restore_kept(repo)
        _refill_cache(repo)
        _remove_empty_raw()
        without_text = False
        text_is_missing = any(out.changed_cache() for out in _cached_outs(repo, *TEXT_STAGES))
        if text_is_missing and not options["dry"] and not _needs_text(repo, options):
            without_text = not _fetch_text(repo)
        elif jobs > 1:
            retry_while_locked(repo, lambda: repo.reproduce("preprocess"))
            stale = [stage.addressing for stage in _stale(repo, options)]
            _run_in_parallel([stage for stage in stale if stage.startswith("train@")], jobs)
        if without_text:
            options |= {"allow_missing": True, "repro_fn": _reproduce_without_text}
        retry_while_locked(repo, lambda: repo.reproduce(**options))
    if without_text:
        corpus = load_params().preprocess.corpus
        say(f"no source in {PARAMS} delivers the text of {corpus}, which training and evaluation need;")
        say("nothing has to be trained or evaluated now: report, `make ui`, `score` and `generate` work without it")


def _refill_cache(repo: Repo) -> None:
    """Add to DVC's cache the results in place that are unchanged since they were recorded and missing from it."""
    with lock_repo(repo):
        for out in _cached_outs(repo):
            if out.hash_info and out.exists and out.changed_cache() and not out.changed_checksum():
                out.commit()


def _cached_outs(repo: Repo, *stages: str) -> list[Any]:
    """The outputs that DVC caches, of these stages or of all."""
    chosen = [stage for stage in repo.index.stages if not stages or stage.name in stages]
    return [out for stage in chosen for out in stage.outs if out.use_cache]


def _stale(repo: Repo, options: dict[str, Any]) -> list[Stage]:
    """The stages that DVC would run if it had the text, except those that first need the results of others."""

    def changed(stage: Stage, upstream: list[Stage], force: bool, **_: object) -> Stage | None:
        return stage if force or stage.changed(True, upstream) else None

    with set_loggers_level(logging.CRITICAL):
        return retry_while_locked(repo, lambda: repo.reproduce(**options, repro_fn=changed))


def _needs_text(repo: Repo, options: dict[str, Any]) -> bool:
    """Whether the text has to be there: for a stage that is stale, and of which nothing is kept."""
    made: dict[str, str] = {}
    for stage in filter(_reads_text, _stale(repo, options)):
        if options["force"] or not (kept := kept_run(stage, made)):
            return True
        made |= {out["path"]: out["md5"] for out in kept["outs"]}
    return False


def _reads_text(stage: Stage) -> bool:
    return stage.name in TEXT_STAGES or any(Path(dep.def_path) in (RAW, PROCESSED) for dep in stage.deps)


def _reproduce_without_text(stage: Stage, **options: Any) -> Stage | None:
    """What DVC does with a stage, except that what is kept of it is taken without the text."""
    if stage.changed(True, options["upstream"]) and (kept := kept_run(stage, {})):
        say(f"Stage '{stage.addressing}' is kept in {REFERENCE}: not run again")
        take_kept_run(stage, kept)
        return stage
    if stage.reproduce(**options):
        stage.dump(update_pipeline=False)
        return stage
    return None


def _fetch_text(repo: Repo) -> bool:
    """Get the text if a source delivers it; returns whether one did."""
    if not any_source_responds(load_params().download):
        return False
    try:
        retry_while_locked(repo, lambda: repo.reproduce("preprocess"))
    except DvcException as error:
        _remove_empty_raw()
        if RAW.exists() or not isinstance(_explained(error), UserError):
            raise
        return False
    return True


def _remove_empty_raw() -> None:
    """Remove the empty folder that a failed download leaves, which would count as an edit."""
    with suppress(OSError):
        RAW.rmdir()


def _run_in_parallel(stages: list[str], jobs: int) -> None:
    """Run stages, up to `jobs` at a time, each with its share of the cores. Raises UserError if any of them fails."""
    if not stages:
        return
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    command = [sys.executable, "-m", "pipeline.repro", "--single-item"]
    with subprocess.Popen(
        ["xargs", "-n", "1", "-P", str(jobs), *command],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,  # not a terminal, where their progress bars would collide
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
    """What to raise for an error of DVC's: with its message, unless a stage has printed the reason."""
    words = [" ".join(str(cause).split()) for cause in causes(error)]
    if INTERRUPTED.search(words[-1]):
        return KeyboardInterrupt()
    if isinstance(causes(error)[-1], StageCmdFailedError):
        return UserError(f"{words[0]}, see above: {CONTINUE}")
    return UserError(f"DVC: {': '.join(words)}")
