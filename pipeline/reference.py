"""Bring the weights of the reference run from git, so that nobody has to train them.

They are in results/reference, DVC's remote `reference`. A model gets those that dvc.lock names if params.yaml still has
its settings, its history is theirs, and it neither has weights nor is being trained: your own are left alone. `make
repro` and `make ui` begin with this; it takes no network.
"""

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from pipeline.artifacts.checkpoint import is_being_trained
from pipeline.artifacts.dvc_lock import LockedStage, dvc_md5, read_lock
from pipeline.artifacts.history import history_path
from pipeline.artifacts.weights import weights_path
from pipeline.project.console import UserError, run, say
from pipeline.project.files import REFERENCE
from pipeline.project.git import git
from pipeline.settings.params import load_params

REMOTE = "reference"  # in .dvc/config, at REFERENCE


class Lacking(NamedTuple):
    """A model without weights for which git has them."""

    model: str
    md5: str

    @property
    def file(self) -> Path:
        return kept(self.md5)


def lacking() -> list[Lacking]:
    """The models without weights that may have those of the reference run. Raises UserError."""
    params, stages = load_params(), read_lock()
    found = []
    for name, settings in params.models.items():
        stage, weights = stages.get(f"train@{name}", LockedStage()), weights_path(name)
        digest = stage.md5(weights)
        if not digest or weights.exists() or not _is_kept(kept(digest)):
            continue
        if stage.settings(name) == settings and stage.made(history_path(name)) and not is_being_trained(name):
            found.append(Lacking(name, digest))
    return found


def kept(md5: str) -> Path:
    """Where the remote has a file, by its digest."""
    return REFERENCE / "files/md5" / md5[:2] / md5[2:]


def _is_kept(file: Path) -> bool:
    return file.exists() or bool(git("ls-files", "--", str(file)))


def bring(models: Collection[Lacking]) -> tuple[list[str], list[Lacking]]:
    """Give models their weights -> those that have them now, and those whose file in the remote is not whole.

    DVC deletes such a file, so it never gets to see it. Raises UserError.
    """
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]

    with Repo(_wait_for_lock=True) as repo:
        whole = [one for one in models if one.file.is_file() and dvc_md5(one.file) == one.md5]
        brought = [one for one in models if one in whole or repo.cache.local.exists(one.md5)]
        try:
            if whole:
                repo.fetch([str(weights_path(one.model)) for one in whole], remote=REMOTE)
            if brought:
                repo.checkout([str(weights_path(one.model)) for one in brought])
        except DvcException as error:
            raise UserError(f"DVC could not take weights from {REFERENCE}: {' '.join(str(error).split())}") from None
    return [one.model for one in brought], [one for one in models if one not in brought]


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.reference", description=__doc__).parse_args()
    if not (models := lacking()):
        return
    brought, damaged = bring(models)
    if brought:
        say(f"the weights of {', '.join(brought)} are those of the reference run, from {REFERENCE}")
    if damaged:
        files = ", ".join(f"{one.file} ({one.model})" for one in damaged)
        raise UserError(f"damaged or missing: {files}: `git checkout {REFERENCE}` brings it back")


if __name__ == "__main__":
    run(main)
