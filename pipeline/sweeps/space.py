"""A sweep's search space: settings, some fixed and some searched, and the combinations that may be picked from it.

A place in a space is a setting's dotted name or, within a bundle, the path to it: `update.adamw.learning_rate`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice, product
from typing import Any

from optuna.trial import BaseTrial
from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from pipeline.lm.settings import Strict

MOST_COMBINATIONS = 10_000

Scalar = bool | int | float | str | None


class Range(Strict):
    """The numbers from low to high; only integers if both ends are."""

    low: int | float
    high: int | float
    log: bool = False

    @field_validator("high")
    @classmethod
    def _check_order(cls, high: float, info: ValidationInfo) -> float:
        if (low := info.data.get("low")) is not None and not low < high:
            raise PydanticCustomError("order", "has to be greater than low, {low}", {"low": low})
        return high

    @field_validator("log")
    @classmethod
    def _check_log(cls, log: bool, info: ValidationInfo) -> bool:
        if log and info.data.get("low", 1) <= 0:
            raise PydanticCustomError("logarithm", "low has to be greater than 0 for this")
        return log

    @property
    def values(self) -> tuple[float, float]:
        """Both ends."""
        return self.low, self.high

    def suggest(self, trial: BaseTrial, place: str) -> float:
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(place, self.low, self.high, log=self.log)
        return trial.suggest_float(place, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Scalar, ...]

    def suggest(self, trial: BaseTrial, place: str) -> Scalar:
        return trial.suggest_categorical(place, self.values)


@dataclass(frozen=True)
class OneOf:
    """One of several named bundles of settings."""

    one_of: Mapping[str, "Space"]

    @property
    def values(self) -> list[str]:
        """The names of its bundles."""
        return list(self.one_of)

    def suggest(self, trial: BaseTrial, place: str) -> str:
        return trial.suggest_categorical(place, self.values)


Searched = Range | Choice | OneOf
Node = Searched | Scalar
Space = Mapping[str, Node]  # by dotted name
Picked = Mapping[str, Any]  # by place: a value, or a bundle's name


def walk(space: Space, picked: Picked | None = None, prefix: str = "") -> Iterator[tuple[str, str, Node]]:
    """Every place in a space, with the setting's name and its node: in all bundles, or only in those picked."""
    for name, node in space.items():
        place = prefix + name
        yield place, name, node
        if isinstance(node, OneOf):
            for bundle in node.values if picked is None else [picked[place]]:
                yield from walk(node.one_of[bundle], picked, f"{place}.{bundle}.")


def draw(space: Space, trial: BaseTrial) -> dict[str, Any]:
    """The values that Optuna's trial suggests, by place."""
    picked: dict[str, Any] = {}
    for place, _, node in walk(space, picked):  # enters a bundle once it has been picked
        if isinstance(node, Searched):
            picked[place] = node.suggest(trial, place)
    return picked


def is_complete(space: Space, picked: Picked) -> bool:
    """Whether something is picked for every place, not only for the first ones."""
    return all(place in picked for place, _, node in walk(space, picked) if isinstance(node, Searched))


def overrides(space: Space, picked: Picked) -> dict[str, Scalar]:
    """The values of a space's settings, by dotted name."""
    return {
        name: picked[place] if isinstance(node, Searched) else node
        for place, name, node in walk(space, picked)
        if not isinstance(node, OneOf)
    }


def searched(space: Space) -> dict[str, Searched]:
    """Everything that is searched, including bundles and the settings in them, each once, by its own name."""
    found: dict[str, Searched] = {}
    for _, name, node in walk(space):
        if isinstance(node, Searched):
            found.setdefault(name, node)
    return found


def combinations(space: Space, most: int = MOST_COMBINATIONS, prefix: str = "") -> Iterator[dict[str, Any]]:
    """What may be picked: the combinations of a space's bundles, choices and ends of ranges, up to `most` of them.

    If there are more, each bundle, choice and end is in at least one of those. The seed varies slowest, so that every
    combination of other settings comes once before any is repeated.
    """
    alternatives = [
        [
            {prefix + name: value} | within
            for value in node.values
            for within in combinations(_bundle(node, value), most, f"{prefix}{name}.{value}.")
        ]
        for name, node in sorted(space.items(), key=lambda item: item[0] != "seed")
        if isinstance(node, Searched)
    ]
    every = product(*alternatives)
    longest = max(map(len, alternatives), default=0)
    each = (tuple(parts[number % len(parts)] for parts in alternatives) for number in range(longest))
    for parts in islice(chain(each, every), max(most, longest)) if size(space) > most else every:
        yield {place: value for part in parts for place, value in part.items()}


def size(space: Space) -> int:
    """The number of combinations, computed without listing them."""
    nodes = (node for node in space.values() if isinstance(node, Searched))
    return math.prod(sum(size(_bundle(node, value)) for value in node.values) for node in nodes)


def _bundle(node: Searched, value: Any) -> Space:
    """The settings in a bundle; empty for any other value."""
    return node.one_of[value] if isinstance(node, OneOf) else {}
