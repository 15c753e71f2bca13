"""A sweep's file: the model it starts from, and what it tries instead of that model's settings."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from pipeline.lm.settings import Count, Settings, Strict
from pipeline.project.console import UserError
from pipeline.settings.mistakes import shown, validate
from pipeline.settings.overlay import flattened, overlay
from pipeline.settings.params import parse_params, parse_yaml, read_yaml
from pipeline.settings.recipes import laid_over, read_base
from pipeline.settings.schema import LONGEST_NAME, NAME, ModelName, ModelSettings
from pipeline.sweeps.complaints import Complaints
from pipeline.sweeps.space import (
    Choice,
    OneOf,
    Pick,
    Range,
    Scalar,
    Space,
    combinations,
    grid,
    grid_size,
    nested,
    overrides,
    parse_space,
    plain,
    ranges,
    searched,
)

MOST_TRIALS = 100_000  # each of them waits in the database from the start

Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Sampler(Strict):
    """How the next trial is chosen: at random, or by a tree-structured Parzen estimator (Bergstra et al. 2011)."""

    name: Literal["tpe", "random"]
    seed: Seed = 1


class Grid(Strict):
    """Every combination of the choices, each once."""

    name: Literal["grid"]


class Pruner(Strict):
    """Ends a trial whose best validation perplexity is above a percentile of the complete trials' at the same epoch.

    percentile: 50 is the median rule (Golovin et al. 2017), lower is stricter
    startup_trials: how many have to complete before any is pruned
    min_epochs: how many epochs every trial gets
    """

    percentile: Annotated[float, Field(gt=0, lt=100)]
    startup_trials: Count
    min_epochs: Count


class Combination(Strict):
    settings: ModelSettings


class SweepFile(Strict):
    """The file as written. How many trials a grid has follows from its choices."""

    params: Annotated[str, StringConstraints(min_length=1)]
    model: ModelName
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = None
    sampler: Annotated[Sampler | Grid, Field(discriminator="name")] = Sampler(name="tpe")
    pruner: Pruner | None = None
    grace_seconds: Annotated[int, Field(ge=4, le=1_000_000)] = 120
    evaluate: bool = False
    settings: dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """A sweep, checked: every combination of its space's ends and choices is a model that can be trained.

    base: the settings of the model it starts from
    params: the params file that has this model, as a document; for a recipe, the complete file it results in
    recipe_base: the text of the params.yaml that recipes are laid over
    trials: how many to run in total
    grid: what each of them picks, by place, if that is known from the start
    grace_seconds: a worker that is silent for longer is presumed dead
    evaluate: whether the best weights of each complete trial are evaluated on the test text
    """

    name: str
    path: Path
    model: str
    params: Mapping[str, Any]
    recipe_base: str
    base: Settings
    space: Space
    trials: int
    grid: Sequence[Mapping[str, Any]]
    sampler: Sampler | Grid
    pruner: Pruner | None
    grace_seconds: int
    evaluate: bool

    @property
    def over_seeds(self) -> bool:
        return "seed" in searched(self.space)

    def settings(self, pick: Pick) -> Settings:
        """The settings that `pick` chooses from the space. Raises UserError if they are not valid together."""
        return _overlaid(self.base, overrides(self.space, pick), self.path)

    def tried(self, pick: Pick) -> dict[str, Any]:
        """What `pick` chooses for everything that is searched: each bundle's name, each setting's value or None."""
        bundles: dict[str, Any] = {}

        def noting(place: str, node: Range | Choice | OneOf) -> Any:
            value = pick(place, node)
            if isinstance(node, OneOf):
                bundles[place.rpartition(".")[2]] = value
            return value

        flat = flattened(self.settings(noting))
        return {
            name: (bundles if isinstance(node, OneOf) else flat).get(name)
            for name, node in searched(self.space).items()
        }

    def study_name(self, corpus_fingerprint: str) -> str:
        """Identifies what the trials have in common, so that an edited sweep never continues with trials of another.

        It does not depend on the number of trials: more may be requested later. See also `earlier_names`.
        """
        definition = [
            self.base.essentials(),
            plain(self.space),
            self.sampler.model_dump(),
            self.pruner and self.pruner.model_dump(),
            corpus_fingerprint,
            *(["evaluate"] if self.evaluate else []),
        ]
        return f"{self.name}-{hashlib.sha256(json.dumps(definition).encode()).hexdigest()[:8]}"

    def earlier_names(self, corpus_fingerprint: str) -> Iterator[str]:
        """The names of the studies that this one continues: a grid's list of seeds may become longer at its end."""
        seeds = self.space.get("seed")
        if isinstance(self.sampler, Grid) and isinstance(seeds, Choice):
            for number in range(2, len(seeds.values)):
                space = {**self.space, "seed": Choice(seeds.values[:number])}
                yield replace(self, space=space).study_name(corpus_fingerprint)

    def corners(self) -> Iterator[Settings]:
        """The settings of the combinations of ends and choices."""
        for combination in combinations(self.space):
            yield _overlaid(self.base, combination, self.path)


def load_sweep(path: Path) -> Sweep:
    """Read and check a sweep's file and the params file or recipe in it. Raises UserError, a line for each mistake."""
    if not re.fullmatch(NAME, path.stem) or len(path.stem) > LONGEST_NAME:  # it becomes a recipe's, in the end
        letters = f"small letters, digits and underscores, {LONGEST_NAME} at most"
        raise UserError(f"{shown(path.name)}: a sweep goes by its file's name, which is of {letters}: rename the file")
    document, recipe_base = read_yaml(path), read_base()
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected {', '.join(SweepFile.model_fields)}")
    complaints = Complaints()
    file = complaints.of(lambda: validate(SweepFile, document, path))
    space = complaints.of(lambda: _read_space(document, path))
    source = complaints.of(lambda: _read_source(document, path, recipe_base))
    trials = complaints.of(lambda: _count_trials(file, space, path)) if file and space else None
    if space and source:
        for combination in combinations(space):
            complaints.of(partial(_overlaid, source[1], combination, path))
    complaints.raise_all()
    assert file
    assert space
    assert source
    assert trials
    return Sweep(
        path.stem,
        path,
        file.model,
        source[0],
        recipe_base,
        source[1],
        space,
        trials,
        list(grid(space)) if isinstance(file.sampler, Grid) else [],
        file.sampler,
        file.pruner,
        file.grace_seconds,
        file.evaluate,
    )


def _read_space(document: Mapping[str, Any], path: Path) -> Space | None:
    """None if the file has no settings, which `SweepFile` tells."""
    if not isinstance(settings := document.get("settings"), dict):
        return None
    space = parse_space(settings, path, ("settings",))
    if not searched(space):
        raise UserError(f"{path}: settings: nothing to search: give one of them a [list] or {{low: ..., high: ...}}")
    return space


def _read_source(
    document: Mapping[str, Any], path: Path, recipe_base: str
) -> tuple[Mapping[str, Any], Settings] | None:
    """The params file as a document, and the model in it; None if the file names none, which `SweepFile` tells."""
    params, model = document.get("params"), document.get("model")
    if not isinstance(params, str) or not params or not isinstance(model, str):
        return None
    source = parse_yaml(laid_over(Path(params), recipe_base), Path(params))
    models = parse_params(source, Path(params)).models
    if model not in models:
        raise UserError(f"{path}: model = {shown(model)}: {params} has {', '.join(models)}")
    if models[model].teachers:
        raise UserError(f"{path}: model = {shown(model)}: one that has teachers cannot be in a sweep: choose another")
    return source, models[model]


def _count_trials(file: SweepFile, space: Space, path: Path) -> int:
    """How many trials there are to be. Raises UserError."""
    if not isinstance(file.sampler, Grid):
        if file.trials is None:
            raise UserError(f"{path}: trials is missing")
        return file.trials
    if ranged := next(ranges(space), ""):
        raise UserError(f"{path}: settings.{ranged}: a grid is of choices: give a [list] instead of a range")
    size = grid_size(space)
    if size > MOST_TRIALS:
        raise UserError(f"{path}: a grid of {shown(size)} combinations: {MOST_TRIALS:,} at most")
    if file.trials not in (None, size):
        raise UserError(f"{path}: trials = {file.trials}: this grid has {size} combinations: leave it out")
    return size


def _overlaid(base: Settings, flat: Mapping[str, Scalar], path: Path) -> Settings:
    return validate(Combination, {"settings": overlay(base.model_dump(), nested(flat))}, path).settings
