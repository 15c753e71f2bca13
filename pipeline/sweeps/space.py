"""What a sweep tries: a space of settings, read from the section `settings` of a sweep's file.

Settings are named as in a params file, dotted or nested:

    epochs: 3                                         fixed
    cell: [lstm, gru]                                 one of these values
    learning_rate: {low: 0.1, high: 30.0, log: true}  between these, uniformly in the logarithm
    bptt: {low: 20, high: 40}                         a whole number, because both ends are
    update: {one_of: {plain: {...}, adamw: {...}}}    one of these bundles of settings, each written as here
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, product
from pathlib import Path
from typing import Any

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from pipeline.lm.settings import Strict
from pipeline.project.console import UserError
from pipeline.settings.mistakes import shown, validate
from pipeline.sweeps.complaints import Complaints

MOST_COMBINATIONS = 10_000

Scalar = bool | int | float | str | None


class Range(Strict):
    """The numbers from low to high; only whole numbers if both are whole."""

    low: int | float
    high: int | float
    log: bool = False

    @field_validator("high")
    @classmethod
    def _ends_are_in_order(cls, high: float, info: ValidationInfo) -> float:
        if (low := info.data.get("low")) is not None and not low < high:
            raise PydanticCustomError("order", "has to be greater than low, {low}", {"low": low})
        return high

    @field_validator("log")
    @classmethod
    def _a_logarithm_is_of_positive_numbers(cls, log: bool, info: ValidationInfo) -> bool:
        if log and info.data.get("low", 1) <= 0:
            raise PydanticCustomError("logarithm", "low has to be greater than 0 for that")
        return log

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class OneOf:
    """One of several named bundles of settings."""

    bundles: Mapping[str, "Space"]


Node = Range | Choice | OneOf | Scalar
Space = Mapping[str, Node]  # by dotted name
Pick = Callable[[str, Range | Choice | OneOf], Any]  # gives a value, or a bundle's name, for a place in the space


def overrides(space: Space, pick: Pick, place: str = "") -> dict[str, Scalar]:
    """The values that `pick` chooses from a space, by the settings' dotted names.

    `pick` is given the name of each place in the space, such as `update.adamw.learning_rate` in a bundle.
    """
    flat: dict[str, Scalar] = {}
    for name, node in space.items():
        if isinstance(node, OneOf):
            bundle = pick(place + name, node)
            flat |= overrides(node.bundles[bundle], pick, f"{place}{name}.{bundle}.")
        else:
            flat[name] = pick(place + name, node) if isinstance(node, Range | Choice) else node
    return flat


def combinations(space: Space) -> Iterator[dict[str, Scalar]]:
    """Every combination of a space's bundles, choices and ends of ranges, up to MOST_COMBINATIONS.

    Where there are more, each bundle, choice and end is at least in one of those.
    """
    alternatives = _alternatives(space)
    longest = max(map(len, alternatives), default=0)
    each = ([parts[number % len(parts)] for parts in alternatives] for number in range(longest))
    every = product(*alternatives)
    cut = math.prod(map(len, alternatives)) > MOST_COMBINATIONS
    for parts in islice(chain(each, every) if cut else every, max(MOST_COMBINATIONS, longest)):
        yield {name: value for part in parts for name, value in part.items()}


def _alternatives(space: Space) -> list[list[dict[str, Scalar]]]:
    """What each place of a space may come to."""
    alternatives: list[list[dict[str, Scalar]]] = []
    for name, node in space.items():
        match node:
            case OneOf():
                alternatives.append([flat for bundle in node.bundles.values() for flat in combinations(bundle)])
            case Choice():
                alternatives.append([{name: value} for value in node.values])
            case Range():
                alternatives.append([{name: node.low}, {name: node.high}])
            case _:
                alternatives.append([{name: node}])
    return alternatives


def grid(space: Space) -> Iterator[dict[str, Any]]:
    """Every combination of a space's bundles and choices, each once, by place: what `pick` is to give.

    The seed varies slowest, so that every other combination has been tried once before any is tried again. The space
    has no ranges.
    """
    alternatives: list[list[dict[str, Any]]] = []
    for name, node in sorted(space.items(), key=lambda item: item[0] != "seed"):
        if isinstance(node, OneOf):
            alternatives.append(
                [
                    {name: bundle} | {f"{name}.{bundle}.{place}": value for place, value in inner.items()}
                    for bundle, within in node.bundles.items()
                    for inner in grid(within)
                ]
            )
        elif isinstance(node, Choice):
            alternatives.append([{name: value} for value in node.values])
    for parts in product(*alternatives):
        yield {place: value for part in parts for place, value in part.items()}


def grid_size(space: Space) -> int:
    """How many combinations `grid` gives, without making them."""
    return math.prod(
        sum(map(grid_size, node.bundles.values())) if isinstance(node, OneOf) else len(node.values)
        for node in space.values()
        if isinstance(node, OneOf | Choice)
    )


def searched(space: Space) -> dict[str, Range | Choice | OneOf]:
    """Everything that is searched, bundles as well as the settings in them, each once and by its own name."""
    found: dict[str, Range | Choice | OneOf] = {}
    for name, node in space.items():
        if isinstance(node, Range | Choice | OneOf):
            found.setdefault(name, node)
        if isinstance(node, OneOf):
            for bundle in node.bundles.values():
                found = found | {inner: within for inner, within in searched(bundle).items() if inner not in found}
    return found


def ranges(space: Space) -> Iterator[str]:
    """The names of the settings that have a range, in bundles as well."""
    for name, node in space.items():
        if isinstance(node, Range):
            yield name
        elif isinstance(node, OneOf):
            yield from chain.from_iterable(map(ranges, node.bundles.values()))


def parse_space(document: Mapping[str, Any], path: Path, location: tuple[str, ...]) -> Space:
    """Raises UserError, a line for each mistake."""
    space: dict[str, Node] = {}
    complaints = Complaints()
    for key, value in document.items():
        space |= complaints.of(partial(_parse_node, str(key), value, path, (*location, str(key)))) or {}
    complaints.raise_all()
    return space


def _parse_node(name: str, value: Any, path: Path, place: tuple[str, ...]) -> Space:
    match value:
        case list():
            return {name: _parse_choice(value, path, place)}
        case {"one_of": _} if "." not in name:
            return {name: _parse_one_of(value, path, place)}
        case {"low": _} | {"high": _}:
            return {name: validate(Range, value, path, place)}
        case dict():
            group = {} if "one_of" in value else parse_space(value, path, place)
            if "one_of" in value or any(isinstance(node, OneOf) for node in group.values()):
                raise UserError(f"{path}: {'.'.join(place)}: name a one_of without a dot, outside of any group")
            return {f"{name}.{inner}": node for inner, node in group.items()}
    return {name: value}


def _parse_choice(values: list, path: Path, place: tuple[str, ...]) -> Choice:
    where = f"{path}: {'.'.join(place)}"
    if not all(isinstance(value, Scalar) for value in values):
        raise UserError(f"{where}: a list is of plain values: name bundles of settings under {{one_of: ...}}")
    if len(values) < 2 or len(set(values)) < len(values):
        raise UserError(f"{where} = {shown(values)}: a choice is between two or more different values")
    return Choice(tuple(values))


def _parse_one_of(document: dict, path: Path, place: tuple[str, ...]) -> OneOf:
    where, bundles = f"{path}: {'.'.join(place)}", document["one_of"]
    if len(document) > 1:
        raise UserError(f"{where}: nothing stands beside one_of, but {', '.join(set(document) - {'one_of'})} does")
    if not isinstance(bundles, dict) or len(bundles) < 2 or not all(isinstance(b, dict) for b in bundles.values()):
        raise UserError(f"{where}.one_of: expected two or more names, each with its settings: {{name: {{...}}, ...}}")
    complaints, parsed = Complaints(), {}
    for name, bundle in bundles.items():
        parsed[str(name)] = complaints.of(partial(parse_space, bundle, path, (*place, str(name)))) or {}
    complaints.raise_all()
    return OneOf(parsed)


def nested(flat: Mapping[str, Scalar]) -> dict[str, Any]:
    """`{"optimizer.name": "sgd"}` as `{"optimizer": {"name": "sgd"}}`."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, key = name.split(".")
        inner = nested
        for group in groups:
            if not isinstance(inner.get(group), dict):
                inner[group] = {}
            inner = inner[group]
        inner[key] = value
    return nested


def plain(space: Space) -> dict[str, Any]:
    """A space in a form that JSON can represent."""
    values: dict[str, Any] = {}
    for name, node in space.items():
        match node:
            case OneOf():
                values[name] = {"one_of": {bundle: plain(inner) for bundle, inner in node.bundles.items()}}
            case Choice():
                values[name] = list(node.values)
            case Range():
                values[name] = node.model_dump()
            case _:
                values[name] = node
    return values
