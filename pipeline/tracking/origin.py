"""Where a run comes from, and what is needed to reproduce it: commit, uncommitted edits, packages, data."""

import getpass
import os
import re
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

from pipeline.artifacts.dvc_lock import LOCK, LockedStage, dvc_md5, read_lock
from pipeline.project.console import UserError
from pipeline.project.files import CORPUS_METRICS, PROCESSED, RAW
from pipeline.project.git import git

LONGEST_DIFF = 1_000_000  # characters
IDS_MD5, RAW_MD5, WEIGHTS_MD5 = "dvc_md5_ids", "dvc_md5_corpus", "dvc_md5_weights"


def circumstances() -> dict[str, str]:
    """Who ran which command, at which commit, in which DVC stage and experiment."""
    commit = (git("rev-parse", "HEAD") or "").strip()
    tags = {
        "mlflow.source.name": f"python -m pipeline.{Path(sys.argv[0]).stem}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
        "git_dirty": str(bool(git("status", "--porcelain", "--untracked-files=no"))).lower() if commit else "",
        "dvc_stage": os.environ.get("DVC_STAGE", ""),
        "dvc_experiment": os.environ.get("DVC_EXP_NAME", ""),
    }
    with suppress(KeyError, OSError):  # a container may run under a user id that has no name
        tags["mlflow.user"] = getpass.getuser()
    return {name: value for name, value in tags.items() if value}


def uncommitted_changes() -> str:
    """What `git diff` shows, except for files that DVC writes; login and query are removed from addresses."""
    excluded = [f":(exclude){path}" for path in (CORPUS_METRICS.parent, LOCK)]
    diff = git("diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD", "--", ".", *excluded) or ""
    diff = re.sub(r"(://)[^\s\"'<>]*@", r"\1***@", diff)
    diff = re.sub(r"(://[^\s\"'<>?]*\?)[^\s\"'<>]*", r"\1***", diff)
    return diff if len(diff) <= LONGEST_DIFF else f"{diff[:LONGEST_DIFF]}\n[cut: {len(diff):,} characters in all]\n"


@cache
def packages() -> str:
    """The installed packages and their versions, one per line, in pip's format."""
    return "".join(sorted({f"{one.metadata['Name']}=={one.version}\n" for one in distributions()}, key=str.lower))


def local_data() -> dict[str, str]:
    """DVC's digests of the ids in data/processed and, if dvc.lock has it, of the text they were made from."""
    if not PROCESSED.exists():
        return {}
    try:
        stages = read_lock()
    except UserError:
        stages = {}
    return digests_of_data(dvc_md5(PROCESSED), stages)


def digests_of_data(ids: str, stages: dict[str, LockedStage]) -> dict[str, str]:
    """The digest of the ids, and of the text they were made from according to dvc.lock."""
    made = stages.get("preprocess", LockedStage())
    text = made.md5(RAW) if made.md5(PROCESSED) == ids else None
    return {IDS_MD5: ids} | ({RAW_MD5: text} if text else {})


def last_commit_of(path: Path) -> str:
    """The commit that last changed a file; empty if the file has been changed since, or is in no commit."""
    if git("status", "--porcelain", "--ignored", "--", str(path)):
        return ""
    return (git("log", "-1", "--format=%H", "--", str(path)) or "").strip()


def text_at(commit: str, path: Path) -> str:
    """A file in a commit; empty if it is not there."""
    return git("show", f"{commit}:./{path}") or ""
