"""Apply a recipe to params.yaml, for `dvc repro` to run; without a name, list the recipes.

A recipe holds only what differs from the committed params.yaml, so applying one replaces the one before.
"""

import argparse
import sys
from pathlib import Path

from pipeline.corpus import sample
from pipeline.project.console import UserError, run, say
from pipeline.project.files import PARAMS, PARAMS_BASE, RECIPES, SAMPLE, atomic_write
from pipeline.settings.params import parse_params, parse_yaml, read_text
from pipeline.settings.recipes import apply_recipe, committed_params, read_base, recipe_files


def list_recipes() -> None:
    """Show every recipe with the first line of its comment. Raises UserError if there are none."""
    recipes = recipe_files()
    if not recipes:
        raise UserError(f"no recipes here: run from the repository's root, or put one into {RECIPES}")
    width = max(map(len, recipes))
    for name, path in recipes.items():
        comments = (line for line in read_text(path).splitlines() if line.startswith("#"))
        say(f"{name:{width}}  {next(comments, '').lstrip('# ')}".rstrip())


def find_recipe(name: str) -> Path:
    """The file of a recipe. Raises UserError, listing those that exist, if there is no such recipe."""
    recipes = recipe_files()
    if name not in recipes:
        raise UserError(f"no recipe {name!r} in {RECIPES}: there are {', '.join(recipes) or 'none'}")
    return recipes[name]


def use_recipe(name: str) -> None:
    """Apply recipes/NAME.yaml to the repository's params.yaml. Raises UserError, and then leaves it unchanged.

    If the recipe uses the sample corpus, that is written first.
    """
    recipe = find_recipe(name)
    base, committed = read_base(), committed_params()
    text = apply_recipe(base, recipe)
    if not _can_be_restored(base, committed, recipe):
        raise UserError(f"{PARAMS} has edits that would be lost: {_remedy(committed)}")
    if SAMPLE.as_posix() in parse_params(parse_yaml(text, PARAMS)).download.sources:
        sample.write(SAMPLE)
    if committed is None:
        _write(PARAMS_BASE, base)
    _write(PARAMS, text)
    back = f"git checkout {PARAMS}" if committed is not None else f"cp {PARAMS_BASE} {PARAMS}"
    say(f"{PARAMS} now has {recipe} applied: `dvc repro` runs it, `{back}` undoes it")


def _can_be_restored(base: str, committed: str | None, recipe: Path) -> bool:
    """Whether params.yaml is as committed, or the result of applying a recipe to the base, or missing."""
    if not PARAMS.exists():
        return True
    content = PARAMS.read_bytes()
    if content in (base.encode(), (committed or base).encode()):
        return True
    return any(_results_in(content, base, path) for path in (recipe, *recipe_files().values()))


def _results_in(content: bytes, base: str, recipe: Path) -> bool:
    try:
        return apply_recipe(base, recipe).encode() == content
    except UserError:  # a mistake in another recipe than the one asked for
        return False


def _remedy(committed: str | None) -> str:
    if committed is not None:
        return f"`git commit {PARAMS}`, or `git checkout {PARAMS}`"
    return f"keep them with `cp {PARAMS} {PARAMS_BASE}`, or drop them with `cp {PARAMS_BASE} {PARAMS}`"


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.recipe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", help="a recipe's name, such as best; leave it out to list them all")
    parser.add_argument("--print", action="store_true", help="only print the resulting params.yaml")
    arguments = parser.parse_args()
    if arguments.recipe is None:
        if arguments.print:
            parser.error("--print needs the name of a recipe")
        list_recipes()
    elif arguments.print:
        sys.stdout.write(apply_recipe(read_base(), find_recipe(arguments.recipe)))
    else:
        use_recipe(arguments.recipe)


if __name__ == "__main__":
    run(main)
