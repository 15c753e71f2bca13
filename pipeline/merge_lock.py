"""Resolve a git conflict in dvc.lock, stage by stage.

Two machines that train different models both append to dvc.lock, and git, which merges line by line, sees a conflict. A
stage that only one side ran, or that both ran with the same result, is not a conflict: it is kept as it is, and nothing
is trained again. Run this after the `git pull`, `git merge` or `git rebase` that stopped.
"""

import argparse
import subprocess
from contextlib import suppress
from typing import Any

from ruamel.yaml import YAML

from pipeline.artifacts.dvc_lock import LOCK
from pipeline.project.console import UserError, run, say
from pipeline.project.files import atomic_write
from pipeline.settings.params import parse_yaml

ANCESTOR, OURS, THEIRS = 1, 2, 3  # git's numbers for the sides of a conflict (gitrevisions)


def merge(ancestor: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Three-way merge of the stages of a dvc.lock, each taken as a whole.

    Raises UserError when the two sides ran a stage with different results.
    """
    differing = sorted(
        name
        for name in ours.keys() | theirs.keys()
        if ours.get(name) != theirs.get(name) and ancestor.get(name) not in (ours.get(name), theirs.get(name))
    )
    if differing:
        raise UserError(
            f"both sides changed {', '.join(differing)}: keep one side's with `git checkout --ours {LOCK}` or "
            "`--theirs`, then `dvc repro` runs what is missing"
        )
    changed = {name: stage for name, stage in theirs.items() if stage != ancestor.get(name)}
    deleted = ancestor.keys() - theirs.keys()
    return {name: stage for name, stage in (ours | changed).items() if name not in deleted}


def read_side(side: int) -> dict[str, Any]:
    """One side of the conflict, as DVC wrote it. Raises UserError if there is no conflict."""
    try:
        content = subprocess.run(["git", "show", f":{side}:./{LOCK}"], capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError("git not found: install git, then run this again") from None
    if content.returncode:
        if side == ANCESTOR:
            return {}
        if b"not a git repository" in content.stderr:
            raise UserError("not a git repository: run this in the clone that has the conflict")
        raise UserError(f"git has no conflict in {LOCK}: nothing to merge")
    with suppress(UserError):
        document = parse_yaml(content.stdout, LOCK)
        if isinstance(document, dict) and isinstance(document.get("stages"), dict):
            return document
    raise UserError(f"{LOCK} is damaged: keep one side's with `git checkout --ours {LOCK}` or `--theirs`")


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.merge_lock", description=__doc__).parse_args()
    ours, theirs, ancestor = read_side(OURS), read_side(THEIRS), read_side(ANCESTOR)
    stages = merge(ancestor.get("stages", {}), ours["stages"], theirs["stages"])
    yaml = YAML()
    with atomic_write(LOCK) as file:
        yaml.dump(ours | {"stages": stages}, file)
    if subprocess.run(["git", "add", LOCK], check=False).returncode:
        raise UserError(
            f"{LOCK} has the stages of both sides, but `git add` failed, see above: fix that, then `git add {LOCK}`"
        )
    say(f"{LOCK} has the stages of both sides: `git commit`, then `dvc pull` fetches their results")


if __name__ == "__main__":
    run(main)
