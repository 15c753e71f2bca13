"""Bring the weights of the reference run from git, so that nobody has to train them.

They are in results/reference, DVC's remote `reference`. A model gets those that dvc.lock names if params.yaml still has
its settings and it has no weights: your own are left alone. `make repro` and `make ui` begin with this; it takes no
network.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from pipeline.artifacts.dvc_lock import LockedStage, read_lock
from pipeline.artifacts.weights import weights_path
from pipeline.project.console import UserError, run, say
from pipeline.project.files import REFERENCE
from pipeline.project.params import load_params

REMOTE = "reference"  # in .dvc/config, at REFERENCE


def lacking() -> dict[str, Path]:
    """The models without weights for which git has them, and where they belong. Raises UserError."""
    params, stages = load_params(), read_lock()
    found = {}
    for name, settings in params.models.items():
        stage, weights = stages.get(f"train@{name}", LockedStage()), weights_path(name)
        digest = stage.md5(weights)
        if digest and kept(digest).exists() and not weights.exists() and stage.settings(name) == settings:
            found[name] = weights
    return found


def kept(md5: str) -> Path:
    """Where the remote has a file, by its digest."""
    return REFERENCE / "files/md5" / md5[:2] / md5[2:]


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.reference", description=__doc__).parse_args()
    if not (models := lacking()):
        return
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "pull", "--quiet", "--remote", REMOTE]
    if subprocess.run([*command, *map(str, models.values())], check=False).returncode:
        raise UserError(f"DVC could not take the weights of {', '.join(models)} from {REFERENCE}: see above")
    say(f"the weights of {', '.join(models)} are those of the reference run, from {REFERENCE}")


if __name__ == "__main__":
    run(main)
