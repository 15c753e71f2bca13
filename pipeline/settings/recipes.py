"""Recipes: files that hold only what differs from params.yaml, and how one is applied to it."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from pipeline.project.console import UserError
from pipeline.project.files import PARAMS, PARAMS_BASE, RECIPES
from pipeline.project.git import git
from pipeline.settings.overlay import merges
from pipeline.settings.params import parse_params, parse_yaml, read_text, read_yaml

WIDTH = 80


def recipe_files(root: Path = Path()) -> dict[str, Path]:
    """The recipes of a project, by name."""
    return {path.stem: path for path in sorted((root / RECIPES).glob("*.yaml"))}


def read_base(root: Path = Path()) -> str:
    """The text of the params.yaml that recipes are applied to: never a recipe's result itself, so they do not pile up.

    It is the file as committed at HEAD or, if that is a recipe's result, the newest earlier version that is not.
    Without git it is the copy that the first recipe left, or else the file itself. Raises UserError if there are
    only results of recipes.
    """
    names = recipe_files(root)
    for text in _versions(root):
        if (name := _recipe_of(text)) not in names:
            return text
    raise UserError(
        f"{PARAMS} is already the recipe {name}, and the file before it is not here: restore the first {PARAMS}, or"
        " change `recipe:` in this one to apply recipes to it"
    )


def committed_params(root: Path = Path()) -> str | None:
    """The text of params.yaml as committed at HEAD; None if git, a repository or the file in it is missing."""
    return git("show", f"HEAD:./{PARAMS}", folder=root)


def apply_recipe(base: str, recipe: Path) -> str:
    """The text of the params file that results from a recipe and a base, with the base's comments and order.

    Groups are merged key by key, and one that names another kind replaces the base's, just as a model's settings are
    merged into the shared ones; but a recipe's `models` replace all of the base's. The result is validated as one file.
    Raises UserError, with a line for each mistake.
    """
    parse_params(parse_yaml(base, PARAMS), PARAMS)
    changes = read_yaml(recipe)
    if not isinstance(changes, dict):
        raise UserError(f"{recipe}: expected what differs from {PARAMS}, such as train: {{epochs: 4}}")
    yaml, text = round_trip(), io.StringIO()
    document = yaml.load(base)
    if "models" in changes:
        models = changes.pop("models")
        _replace(document, "models", models)
        _forget_other_models(document["evaluate"], models if isinstance(models, dict) else {})
    _merge(document, changes | {"recipe": recipe.stem})
    yaml.dump(document, text)
    parse_params(parse_yaml(text.getvalue(), recipe), recipe)
    return text.getvalue()


def resolved_params(path: Path, base: str) -> str:
    """The text of the params file at a path; if that is a recipe, it is applied to the base. Raises UserError."""
    return apply_recipe(base, path) if path.absolute().parent == RECIPES.absolute() else read_text(path)


def differences(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be merged into the base to get what is wanted."""
    found: dict[str, Any] = {}
    for key, value in wanted.items():
        group = base.get(key)
        if key not in base or group != value:
            found[key] = differences(group, value) if isinstance(group, dict) and merges(group, value) else value
    return found


def round_trip() -> YAML:
    """Reads and writes YAML including comments, in the layout of params.yaml, which is DVC's."""
    yaml = YAML()
    yaml.width = WIDTH
    yaml.preserve_quotes = True
    return yaml


def in_layout(value: Any, depth: int = 0) -> Any:
    """A value for `round_trip`, small groups on one line. depth: 0 for a whole file, 1 for a section, and so on.

    In a list, as DVC writes it, each group has lines of its own.
    """
    if not isinstance(value, dict):
        return value
    group = CommentedMap((key, in_layout(inner, depth + 1)) for key, inner in value.items())
    plain = not any(isinstance(inner, dict | list) for inner in value.values())
    if depth > 1 and (plain or len(str(value)) < WIDTH - 20):
        group.fa.set_flow_style()
    return group


def _merge(base: CommentedMap, changes: Mapping[str, Any], depth: int = 1) -> None:
    for key, value in changes.items():
        group = base.get(key)
        if isinstance(group, CommentedMap) and merges(group, value):
            _merge(group, value, depth + 1)
        elif key in base or base.fa.flow_style():
            _replace(base, key, value, depth)
        else:  # not at the end: the last key's comment introduces what follows the group
            base.insert(max(len(base) - 1, 0), key, in_layout(value, depth))


def _replace(base: CommentedMap, key: str, value: Any, depth: int = 1) -> None:
    """Set a value, and keep the comment after it, which belongs to the last line of the replaced group."""
    comment = _comment_after(base.get(key))
    base[key] = in_layout(value, depth)
    keys = list(base)
    if comment and key != keys[-1]:
        following = keys[keys.index(key) + 1]
        base.yaml_set_comment_before_after_key(following, before=comment)


def _comment_after(value: Any) -> str:
    """The comment lines between a group and what follows it, which belong to the group's last entry."""
    text = ""
    while isinstance(value, CommentedMap) and value:
        last = next(reversed(value))
        tokens = value.ca.items.get(last) or [None] * 4
        text = tokens[2].value.partition("\n")[2] if tokens[2] else text
        value = value[last]
    return "\n".join(line.strip().removeprefix("#").strip() for line in text.splitlines())


def _forget_other_models(evaluate: CommentedMap, models: Mapping[str, Any]) -> None:
    """Drop the evaluation settings of models that are no longer there."""
    dynamic = evaluate["dynamic"]
    for name in [name for name in dynamic or {} if name not in models]:
        del dynamic[name]
    evaluate["dynamic"] = dynamic or None


def _recipe_of(text: str) -> Any:
    document = parse_yaml(text, PARAMS)
    return document.get("recipe") if isinstance(document, dict) else None


def _versions(root: Path) -> Iterator[str]:
    """Candidates for params.yaml before any recipe, the most likely first."""
    committed = committed_params(root)
    if committed is None:
        yield read_text(root / PARAMS_BASE if (root / PARAMS_BASE).exists() else root / PARAMS)
        return
    yield committed
    for commit in (git("log", "--format=%H", "--", str(PARAMS), folder=root) or "").split():
        if (text := git("show", f"{commit}:./{PARAMS}", folder=root)) is not None:
            yield text
