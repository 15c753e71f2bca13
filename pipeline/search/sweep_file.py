"""A sweep's file: the model it starts from, and what it tries instead of that model's settings."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from pipeline.lm.settings import Count, Settings, Strict, overlay
from pipeline.project.console import UserError
from pipeline.project.params import parse_params, parse_yaml, read_yaml, shown, validate
from pipeline.project.recipes import laid_over, read_base
from pipeline.project.schema import LONGEST_NAME, NAME, ModelName
from pipeline.search.space import (
    Choice,
    OneOf,
    Pick,
    Range,
    Scalar,
    Space,
    combinations,
    nested,
    overrides,
    parse_space,
    plain,
    searched,
)

MOST_TRIALS = 100_000  # each of them waits in the database from the start

Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Sampler(Strict):
    """How the next trial is chosen: at random, or by a tree-structured Parzen estimator (Bergstra et al. 2011)."""

    name: Literal["tpe", "random"]
    seed: Seed


class Pruner(Strict):
    """Ends a trial whose best validation perplexity is above a percentile of the complete trials' at the same epoch.

    percentile: 50 is the median rule (Golovin et al. 2017), lower is stricter
    startup_trials: how many have to complete before any is pruned
    min_epochs: how many epochs every trial gets
    """

    percentile: Annotated[float, Field(gt=0, lt=100)]
    startup_trials: Count
    min_epochs: Count


class SweepFile(Strict):
    """The file as written."""

    params: Annotated[str, StringConstraints(min_length=1)]
    model: ModelName
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)]
    sampler: Sampler
    pruner: Pruner | None
    grace_seconds: Annotated[int, Field(ge=4, le=1_000_000)]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """A sweep, checked: every combination of its space's ends and choices is a model that can be trained.

    base: the settings of the model it starts from
    params: the params file that has this model, as a document; for a recipe, the complete file it results in
    recipe_base: the text of the params.yaml that recipes are laid over
    trials: how many to run in total
    grace_seconds: a worker that is silent for longer is presumed dead
    """

    name: str
    path: Path
    params: Mapping[str, Any]
    recipe_base: str
    base: Settings
    space: Space
    trials: int
    sampler: Sampler
    pruner: Pruner | None
    grace_seconds: int

    def settings(self, pick: Pick) -> Settings:
        """The settings that `pick` chooses from the space. Raises UserError if they are not valid together."""
        return self._overlaid(overrides(self.space, pick))

    def tried(self, pick: Pick) -> dict[str, Any]:
        """What `pick` chooses for everything that is searched: each bundle's name, each setting's value or None."""
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
        """Identifies what the trials have in common, so that an edited sweep never continues with trials of another.

        It does not depend on the number of trials: more may be requested later.
        """
        definition = [
            self.base.essentials(),
            plain(self.space),
            self.sampler.model_dump(),
            self.pruner and self.pruner.model_dump(),
            corpus_fingerprint,
        ]
        return f"{self.name}-{hashlib.sha256(json.dumps(definition).encode()).hexdigest()[:8]}"

    def check(self) -> None:
        """Raises UserError for a combination of ends and choices that no model can have."""
        for _ in self.corners():
            pass

    def corners(self) -> Iterator[Settings]:
        """The settings of the combinations of ends and choices."""
        for combination in combinations(self.space):
            yield self._overlaid(combination)

    def _overlaid(self, flat: Mapping[str, Scalar]) -> Settings:
        return validate(Settings, overlay(self.base.model_dump(), nested(flat)), self.path, ("settings",))


def load_sweep(path: Path) -> Sweep:
    """Read and check a sweep's file and the params file or recipe it names. Raises UserError at the first mistake."""
    if not re.fullmatch(NAME, path.stem) or len(path.stem) > LONGEST_NAME:  # it becomes a recipe's, in the end
        letters = f"small letters, digits and underscores, {LONGEST_NAME} at most"
        raise UserError(f"{shown(path.name)}: a sweep goes by its file's name, which is of {letters}: rename the file")
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected {', '.join(SweepFile.model_fields)}")
    file = validate(SweepFile, document, path)
    space = parse_space(file.settings, path, ("settings",))
    if not any(isinstance(node, Range | Choice | OneOf) for node in space.values()):
        raise UserError(f"{path}: settings: nothing to search: give one of them a [list] or {{low: ..., high: ...}}")
    params, recipe_base = Path(file.params), read_base()
    document = parse_yaml(laid_over(params, recipe_base), params)
    models = parse_params(document, params).models
    if file.model not in models:
        raise UserError(f"{path}: model = {file.model!r}: {params} has {', '.join(models)}")
    sweep = Sweep(
        path.stem,
        path,
        document,
        recipe_base,
        models[file.model],
        space,
        file.trials,
        file.sampler,
        file.pruner,
        file.grace_seconds,
    )
    sweep.check()
    return sweep
