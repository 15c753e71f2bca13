"""Lay one of the recipes over params.yaml: `dvc repro` then runs it, and `git checkout params.yaml` goes back."""

import argparse
import subprocess
from collections.abc import Iterable
from pathlib import Path

from pipeline.project.console import UserError, run, say
from pipeline.project.files import PARAMS, RECIPES, atomic_write
from pipeline.project.params import load_params


def use_recipe(name: str) -> None:
    """Copy recipes/NAME.yaml to params.yaml. Raises UserError when edits in params.yaml would be lost by that."""
    recipes = {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}
    if name not in recipes:
        raise UserError(f"no recipe {name!r} in {RECIPES}: there are {', '.join(recipes)}")
    load_params(recipes[name])
    if not _is_kept_elsewhere(recipes.values()):
        aside = f"`mv {PARAMS} mine.yaml`"
        if subprocess.run(["git", "rev-parse", "--git-dir"], capture_output=True, check=False).returncode:
            raise UserError(
                f"{PARAMS} may have edits that would be lost, and there is no git here to tell: {aside} first"
            )
        remedies = f"`git commit {PARAMS}`, or `git checkout {PARAMS}`"
        raise UserError(f"{PARAMS} has edits that would be lost: {remedies}, or {aside}")
    with atomic_write(PARAMS, "wb") as file:
        file.write(recipes[name].read_bytes())
    say(f"{PARAMS} is now {recipes[name]}: `dvc repro` runs it, `git checkout {PARAMS}` goes back")


def _is_kept_elsewhere(recipes: Iterable[Path]) -> bool:
    """Whether params.yaml is as committed, or a recipe's copy, or not there."""
    if not PARAMS.exists():
        return True
    content = PARAMS.read_bytes()
    if any(path.read_bytes() == content for path in recipes):
        return True
    try:
        committed = subprocess.run(["git", "show", f"HEAD:./{PARAMS}"], capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError("git not found: install it, or copy the recipe over params.yaml by hand") from None
    return committed.returncode == 0 and committed.stdout == content


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.recipe", description=__doc__)
    parser.add_argument("recipe", help="a name in recipes, such as best")
    use_recipe(parser.parse_args().recipe)


if __name__ == "__main__":
    run(main)
