"""What MLflow is told about a training run, apart from its epochs."""

import getpass
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.corpus.ids import Corpus
from pipeline.lm.settings import Settings
from pipeline.project.schema import PENN_TREEBANK
from pipeline.tracking.faults import REMEDY


@dataclass(frozen=True)
class RunFacts:
    """What is known about a training run, apart from its epochs.

    fingerprint: from `checkpoint.fingerprint`; None if only the history is available
    corpus: None if it is not available
    remedy: the command that will later write whatever MLflow lacks
    training_id: from `checkpoint.training_id`; None if only the results are available
    params: the text of params.yaml at the start of the run
    corpus_name: what params.yaml calls the corpus
    """

    model: str
    fingerprint: str | None
    settings: Settings
    corpus: Corpus | None = None
    tags: dict[str, str] = field(default_factory=dict)
    remedy: str = REMEDY
    training_id: str | None = None
    params: str | None = None
    corpus_name: str = PENN_TREEBANK


def circumstances() -> dict[str, str]:
    """Who ran which command, at which commit, in which DVC stage and experiment."""
    commit = _git("rev-parse", "HEAD")
    tags = {
        "mlflow.user": _user(),
        "mlflow.source.name": f"python -m pipeline.{Path(sys.argv[0]).stem}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
        "git_dirty": str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower() if commit else "",
        "dvc_stage": os.environ.get("DVC_STAGE", ""),
        "dvc_experiment": os.environ.get("DVC_EXP_NAME", ""),
    }
    return {name: value for name, value in tags.items() if value}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user id that has no name
        return ""


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
