"""A sweep's file: the model that it starts from, and what it tries instead of that model's settings.

Under `settings`, by a setting's name as in a params file, dotted or nested:

    epochs: 3                                         fixed
    cell: [lstm, gru]                                 one of these values
    learning_rate: {low: 0.1, high: 30.0, log: true}  between these, evenly in the logarithm
    bptt: {low: 20, high: 40}                         a whole number, because both ends are
    update: {one_of: {plain: {...}, adamw: {...}}}    one of these bundles of settings, each of them as here
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from pipeline.console import UserError
from pipeline.lm.settings import PositiveInt, Settings, Strict
from pipeline.params import ModelName, load_params, overlay, read_yaml, validate

MOST_COMBINATIONS_CHECKED = 10_000

Scalar = bool | int | float | str | None
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Range(Strict):
    """The numbers from low to high; only whole ones if both are whole."""

    low: int | float
    high: int | float
    log: bool = False

    @field_validator("high")
    @classmethod
    def _ends_are_in_order(cls, high: float, info: ValidationInfo) -> float:
        low = info.data.get("low")
        if low is not None and not low < high:
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


class Sampler(Strict):
    """How the next trial is chosen: at random, or by a tree-structured Parzen estimator (Bergstra et al. 2011)."""

    name: Literal["tpe", "random"]
    seed: Seed


class Pruner(Strict):
    """Ends a trial whose best valid perplexity is above a percentile of the complete trials' at the same epoch.

    percentile: 50 is the median rule (Golovin et al. 2017), lower is stricter
    startup_trials: so many complete before any is pruned
    min_epochs: of every trial
    """

    percentile: Annotated[float, Field(gt=0, lt=100)]
    startup_trials: PositiveInt
    min_epochs: PositiveInt


class SweepFile(Strict):
    """The file as it stands."""

    params: Annotated[str, StringConstraints(min_length=1)]
    model: ModelName
    trials: PositiveInt
    sampler: Sampler
    pruner: Pruner | None
    grace_seconds: Annotated[int, Field(ge=4)]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """A sweep, checked: every combination of its space's ends and choices is a model that can be trained.

    base: the settings of the model that it starts from
    params: the params file that has this model
    trials: how many to run in all
    grace_seconds: a worker that is silent for longer is taken for dead
    """

    name: str
    path: Path
    params: Path
    base: Settings
    space: Space
    trials: int
    sampler: Sampler
    pruner: Pruner | None
    grace_seconds: int

    def settings(self, pick: Pick) -> Settings:
        """The settings that `pick` makes of the space. Raises UserError when they are not valid together."""
        return self._overlaid(overrides(self.space, pick))

    def tried(self, pick: Pick) -> dict[str, Any]:
        """What `pick` makes of all that is searched: each bundle's name, each setting's value or None."""
        bundles: dict[str, Any] = {}

        def noting(place: str, node: Range | Choice | OneOf) -> Any:
            value = pick(place, node)
            if isinstance(node, OneOf):
                bundles[place.rpartition(".")[2]] = value
            return value

        flat = self.settings(noting).flat()
        return {
            name: (bundles if isinstance(node, OneOf) else flat).get(name)
            for name, node in searched(self.space).items()
        }

    def study_name(self, corpus_fingerprint: str) -> str:
        """Names what the trials have in common, so that an edited sweep never goes on from other trials than its own.

        More trials may be asked for later: their number has no part in it.
        """
        definition = [
            self.base.model_dump(),
            _plain(self.space),
            self.sampler.model_dump(),
            self.pruner and self.pruner.model_dump(),
            corpus_fingerprint,
        ]
        return f"{self.name}-{hashlib.sha256(json.dumps(definition).encode()).hexdigest()[:8]}"

    def check(self) -> None:
        """Raises UserError at a combination of ends and choices that no model can have."""
        for combination in islice(combinations(self.space), MOST_COMBINATIONS_CHECKED):
            self._overlaid(combination)

    def _overlaid(self, flat: Mapping[str, Scalar]) -> Settings:
        return validate(Settings, overlay(self.base.model_dump(), _nested(flat)), self.path, ("settings",))


def load_sweep(path: Path) -> Sweep:
    """Read and check a sweep's file and the params file that it names. Raises UserError at the first fault."""
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected {', '.join(SweepFile.model_fields)}")
    file = validate(SweepFile, document, path)
    space = _parse(file.settings, path, ("settings",))
    if not any(isinstance(node, Range | Choice | OneOf) for node in space.values()):
        raise UserError(f"{path}: settings: nothing to search: give one of them a [list] or {{low: ..., high: ...}}")
    params = Path(file.params)
    models = load_params(params).models
    if file.model not in models:
        raise UserError(f"{path}: model = {file.model!r}: {params} has {', '.join(models)}")
    sweep = Sweep(
        path.stem,
        path,
        params,
        models[file.model],
        space,
        file.trials,
        file.sampler,
        file.pruner,
        file.grace_seconds,
    )
    sweep.check()
    return sweep


def overrides(space: Space, pick: Pick, place: str = "") -> dict[str, Scalar]:
    """What `pick` makes of a space: values by the settings' dotted names.

    `pick` is given each place in the space by its name, such as `update.adamw.learning_rate` in a bundle.
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
    """Every combination of a space's bundles, choices and ranges' ends."""
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
    for parts in product(*alternatives):
        yield {name: value for part in parts for name, value in part.items()}


def searched(space: Space) -> dict[str, Range | Choice | OneOf]:
    """What is searched, bundles and the settings in them alike, each by its own name and once."""
    found: dict[str, Range | Choice | OneOf] = {}
    for name, node in space.items():
        if isinstance(node, Range | Choice | OneOf):
            found.setdefault(name, node)
        if isinstance(node, OneOf):
            for bundle in node.bundles.values():
                found = found | {inner: within for inner, within in searched(bundle).items() if inner not in found}
    return found


def _parse(document: Mapping[str, Any], path: Path, location: tuple[str, ...]) -> Space:
    space: dict[str, Node] = {}
    for key, value in document.items():
        name, place = str(key), (*location, str(key))
        match value:
            case list():
                space[name] = _parse_choice(value, path, place)
            case {"one_of": _}:
                space[name] = _parse_one_of(value, path, place)
            case {"low": _} | {"high": _}:
                space[name] = validate(Range, value, path, place)
            case dict():
                space |= {f"{name}.{inner}": node for inner, node in _parse(value, path, place).items()}
            case _:
                space[name] = value
    return space


def _parse_choice(values: list, path: Path, place: tuple[str, ...]) -> Choice:
    where = f"{path}: {'.'.join(place)}"
    if not all(isinstance(value, Scalar) for value in values):
        raise UserError(f"{where}: a list is of plain values: name bundles of settings under {{one_of: ...}}")
    if len(values) < 2 or len(set(values)) < len(values):
        raise UserError(f"{where} = {values}: a choice is between two or more different values")
    return Choice(tuple(values))


def _parse_one_of(document: dict, path: Path, place: tuple[str, ...]) -> OneOf:
    where, bundles = f"{path}: {'.'.join(place)}", document["one_of"]
    if len(document) > 1:
        raise UserError(f"{where}: nothing stands beside one_of, but {', '.join(set(document) - {'one_of'})} does")
    if not isinstance(bundles, dict) or len(bundles) < 2 or not all(isinstance(b, dict) for b in bundles.values()):
        raise UserError(f"{where}.one_of: expected two or more names, each with its settings: {{name: {{...}}, ...}}")
    return OneOf({str(name): _parse(bundle, path, (*place, str(name))) for name, bundle in bundles.items()})


def _nested(flat: Mapping[str, Scalar]) -> dict[str, Any]:
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


def _plain(space: Space) -> dict[str, Any]:
    """A space as JSON can hold it."""
    plain: dict[str, Any] = {}
    for name, node in space.items():
        match node:
            case OneOf():
                plain[name] = {"one_of": {bundle: _plain(inner) for bundle, inner in node.bundles.items()}}
            case Choice():
                plain[name] = list(node.values)
            case Range():
                plain[name] = node.model_dump()
            case _:
                plain[name] = node
    return plain
