"""Reading a sweep's file, and reporting all mistakes in it at once.

Its section `settings` is the space. Settings are named as in a params file, dotted or nested:

    epochs: 3                                         fixed
    cell: [lstm, gru]                                 one of these values
    learning_rate: {low: 0.1, high: 30.0, log: true}  between these, uniformly in the logarithm
    bptt: {low: 20, high: 40}                         an integer, because both ends are
    update: {one_of: {plain: {...}, adamw: {...}}}    one of these bundles of settings, each written as here
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.project.console import UserError
from pipeline.settings.mistakes import Mistakes, shown, validate
from pipeline.settings.params import parse_params, parse_yaml, read_yaml
from pipeline.settings.recipes import read_base, resolved_params
from pipeline.settings.schema import LONGEST_NAME, NAME
from pipeline.sweeps.space import Choice, Node, OneOf, Range, Scalar, Space, combinations, searched, size, walk
from pipeline.sweeps.sweep import MOST_TRIALS, Grid, Source, Sweep, SweepFile


def load_sweep(path: Path) -> Sweep:
    """Read and check a sweep's file and the params file or recipe in it. Raises UserError, a line for each mistake."""
    if not re.fullmatch(NAME, path.stem) or len(path.stem) > LONGEST_NAME:  # it becomes a recipe's name
        rule = f"at most {LONGEST_NAME} lower-case letters, digits and underscores"
        raise UserError(f"{shown(path.name)}: the file's name is the sweep's, and may have {rule}: rename it")
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected {', '.join(SweepFile.model_fields)}")
    mistakes = Mistakes()
    file = mistakes.check(lambda: validate(SweepFile, document, path))
    space = mistakes.check(lambda: _read_space(document, path))
    source = mistakes.check(lambda: _read_source(document, path))
    if space is not None and not searched(space):
        mistakes.add(f"{path}: settings: nothing to search: give at least one a [list] or {{low: ..., high: ...}}")
    trials = mistakes.check(lambda: _count_trials(file, space, path)) if file and space and searched(space) else None
    if space and source:
        for picked in combinations(space):
            mistakes.check(partial(source.settings, space, picked, path))
    mistakes.raise_all()
    assert file and space and source and trials  # noqa: PT018 (or there was a mistake)
    return Sweep(path, file, source, space, trials)


def _read_space(document: Mapping[str, Any], path: Path) -> Space | None:
    """None if the file has no settings, which `SweepFile` reports."""
    if not isinstance(settings := document.get("settings"), dict):
        return None
    return _parse_space(settings, path, ("settings",))


def _read_source(document: Mapping[str, Any], path: Path) -> Source | None:
    """None if the file names no params file or no model, which `SweepFile` reports."""
    params, model = document.get("params"), document.get("model")
    if not isinstance(params, str) or not params or not isinstance(model, str):
        return None
    recipe_base = read_base()
    complete = parse_yaml(resolved_params(Path(params), recipe_base), Path(params))
    models = parse_params(complete, Path(params)).models
    if model not in models:
        raise UserError(f"{path}: model = {shown(model)}: {params} has {', '.join(models)}")
    return Source(models[model], complete, recipe_base)


def _count_trials(file: SweepFile, space: Space, path: Path) -> int:
    """The total number of trials. Raises UserError."""
    if not isinstance(file.sampler, Grid):
        if file.trials is None:
            raise UserError(f"{path}: trials is missing")
        return file.trials
    for _, name, node in walk(space):
        if isinstance(node, Range):
            raise UserError(f"{path}: settings.{name}: a grid takes no ranges: give a [list]")
    combined = size(space)
    if combined > MOST_TRIALS:
        raise UserError(f"{path}: a grid of {shown(combined)} combinations: at most {MOST_TRIALS:,} are possible")
    if file.trials not in (None, combined):
        raise UserError(f"{path}: trials = {file.trials}: this grid has {combined} combinations: leave `trials` out")
    return combined


def _parse_space(document: Mapping[str, Any], path: Path, location: tuple[str, ...]) -> Space:
    """Raises UserError, a line for each mistake."""
    space: dict[str, Node] = {}
    mistakes = Mistakes()
    for key, value in document.items():
        space |= mistakes.check(partial(_parse_node, str(key), value, path, (*location, str(key)))) or {}
    mistakes.raise_all()
    return space


def _parse_node(name: str, value: Any, path: Path, location: tuple[str, ...]) -> Space:
    match value:
        case list():
            return {name: _parse_choice(value, path, location)}
        case {"one_of": _} if "." not in name:
            return {name: _parse_one_of(value, path, location)}
        case {"low": _} | {"high": _}:
            return {name: validate(Range, value, path, location)}
        case dict():
            group = {} if "one_of" in value else _parse_space(value, path, location)
            if "one_of" in value or any(isinstance(node, OneOf) for node in group.values()):
                raise UserError(f"{path}: {'.'.join(location)}: a one_of needs a name without a dot, outside any group")
            return {f"{name}.{inner}": node for inner, node in group.items()}
    return {name: value}


def _parse_choice(values: list, path: Path, location: tuple[str, ...]) -> Choice:
    where = f"{path}: {'.'.join(location)}"
    if not all(isinstance(value, Scalar) for value in values):
        raise UserError(f"{where}: a list may only have plain values: put bundles of settings under {{one_of: ...}}")
    if len(values) < 2 or len(set(values)) < len(values):
        raise UserError(f"{where} = {shown(values)}: a choice needs two or more different values")
    return Choice(tuple(values))


def _parse_one_of(document: dict, path: Path, location: tuple[str, ...]) -> OneOf:
    where, bundles = f"{path}: {'.'.join(location)}", document["one_of"]
    if len(document) > 1:
        raise UserError(f"{where}: one_of has to be the only key: remove {', '.join(set(document) - {'one_of'})}")
    if not isinstance(bundles, dict) or len(bundles) < 2 or not all(isinstance(b, dict) for b in bundles.values()):
        raise UserError(f"{where}.one_of: expected two or more names, each with its settings: {{name: {{...}}, ...}}")
    mistakes, parsed = Mistakes(), {}
    for name, bundle in bundles.items():
        parsed[str(name)] = mistakes.check(partial(_parse_space, bundle, path, (*location, str(name)))) or {}
    mistakes.raise_all()
    return OneOf(parsed)
