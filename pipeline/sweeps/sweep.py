"""A sweep: the model that it starts from, the settings that it tries, and how it chooses them."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from optuna.pruners import BasePruner, PercentilePruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from pydantic import Field, StringConstraints

from pipeline.lm.settings import Count, Settings, Strict
from pipeline.project.console import UserError
from pipeline.settings.mistakes import validate
from pipeline.settings.overlay import flattened, nested, overlay
from pipeline.settings.schema import ModelName, ModelSettings
from pipeline.sweeps.space import Choice, OneOf, Picked, Space, combinations, overrides, searched, walk

MOST_TRIALS = 100_000  # all of them are in the database from the start


class Sampler(Strict):
    """How the next trial is chosen: at random, or by a tree-structured Parzen estimator (Bergstra et al. 2011)."""

    name: Literal["tpe", "random"]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1

    def for_trial(self, number: int) -> BaseSampler:
        """A trial's random numbers depend on its number, not on the worker that runs it."""
        seed = (self.seed * 1_000_003 + number) % 2**32
        if self.name == "random":
            return RandomSampler(seed)
        return TPESampler(seed=seed, multivariate=True, group=True)


class Grid(Strict):
    """Each combination of the choices, once."""

    name: Literal["grid"]

    def for_trial(self, number: int) -> BaseSampler:
        return RandomSampler()  # never used: everything is picked when a trial is enqueued


class Pruner(Strict):
    """Ends a trial whose best validation perplexity is above a percentile of the complete trials' at the same epoch.

    percentile: 50 is the median rule (Golovin et al. 2017), lower is stricter
    startup_trials: how many have to complete before any is pruned
    min_epochs: how many epochs every trial gets
    """

    percentile: Annotated[float, Field(gt=0, lt=100)]
    startup_trials: Count
    min_epochs: Count

    def build(self) -> BasePruner:
        return PercentilePruner(self.percentile, self.startup_trials, self.min_epochs)


class SweepFile(Strict):
    """A sweep's file. A grid needs no `trials`: its choices determine their number.

    grace_seconds: a worker that is silent for longer is presumed dead
    evaluate: whether the best weights of each complete trial are evaluated on the test text
    """

    params: Annotated[str, StringConstraints(min_length=1)]
    model: ModelName
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = None
    sampler: Annotated[Sampler | Grid, Field(discriminator="name")] = Sampler(name="tpe")
    pruner: Pruner | None = None
    grace_seconds: Annotated[int, Field(ge=4, le=1_000_000)] = 120
    evaluate: bool = False
    settings: dict[str, Any]


class Combination(Strict):
    settings: ModelSettings


@dataclass(frozen=True)
class Source:
    """The model that a sweep starts from.

    base: its settings
    params: the params file that has it, as a document; for a recipe, the complete file it results in
    recipe_base: the text of the params.yaml that recipes are applied to
    """

    base: Settings
    params: Mapping[str, Any]
    recipe_base: str

    def settings(self, space: Space, picked: Picked, path: Path) -> Settings:
        """The model's settings, overridden by those of a space. Raises UserError, which names the sweep's file."""
        document = overlay(self.base.model_dump(), nested(overrides(space, picked)))
        settings = validate(Combination, {"settings": document}, path).settings
        if settings.teachers:
            remedy = "add `distillation: null` to settings, or choose another model"
            raise UserError(f"{path}: the model has teachers, which a trial cannot have: {remedy}")
        return settings


@dataclass(frozen=True)
class Sweep:
    """A checked sweep: every combination of its space's choices and ends of ranges is a valid model.

    trials: how many to run in total
    """

    path: Path
    file: SweepFile
    source: Source
    space: Space
    trials: int

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def over_seeds(self) -> bool:
        return "seed" in searched(self.space)

    @cached_property
    def grid(self) -> list[dict[str, Any]]:
        """What each trial of a grid picks; empty for other samplers."""
        return list(combinations(self.space, MOST_TRIALS)) if isinstance(self.file.sampler, Grid) else []

    def settings(self, picked: Picked) -> Settings:
        """The settings of a trial. Raises UserError if what is picked is not a valid combination."""
        return self.source.settings(self.space, picked, self.path)

    def corners(self) -> Iterator[Settings]:
        """The settings of every combination of choices and ends of ranges."""
        return map(self.settings, combinations(self.space))

    def tried(self, picked: Picked) -> dict[str, Any]:
        """The value of everything that is searched: a bundle's name or a setting's value; None if it was not picked."""
        bundles = {name: picked[place] for place, name, node in walk(self.space, picked) if isinstance(node, OneOf)}
        flat = flattened(self.settings(picked))
        return {
            name: (bundles if isinstance(node, OneOf) else flat).get(name)
            for name, node in searched(self.space).items()
        }

    def group_name(self, picked: Picked) -> str:
        """What is picked apart from the seed, in words: bundles' names, settings with values; if nothing, the model."""
        nodes = searched(self.space)
        words = [
            value if isinstance(nodes[name], OneOf) else in_words({name: value})
            for name, value in self.tried(picked).items()
            if name != "seed" and value is not None
        ]
        return ", ".join(words) or self.file.model

    def study_name(self, corpus_fingerprint: str) -> str:
        """Identifies what all trials have in common, so that an edited sweep never continues an earlier one's trials.

        It does not depend on the number of trials: more may be requested later. See also `earlier_names`.
        """
        definition = [
            self.source.base.essentials(),
            self.space,
            self.file.sampler.model_dump(),
            self.file.pruner and self.file.pruner.model_dump(),
            corpus_fingerprint,
            *(["evaluate"] if self.file.evaluate else []),
        ]
        text = json.dumps(definition, default=lambda node: node.values if isinstance(node, Choice) else vars(node))
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def earlier_names(self, corpus_fingerprint: str) -> Iterator[str]:
        """The names of the studies that this one continues: seeds may be added at the end of a grid's list."""
        seeds = self.space.get("seed")
        if isinstance(self.file.sampler, Grid) and isinstance(seeds, Choice):
            for number in range(2, len(seeds.values)):
                space = {**self.space, "seed": Choice(seeds.values[:number])}
                yield replace(self, space=space).study_name(corpus_fingerprint)


def in_words(tried: Mapping[str, Any]) -> str:
    """`cell lstm, learning_rate 0.5`."""
    return ", ".join(f"{name} {short(value)}" for name, value in tried.items() if value is not None)


def short(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return f"{value}"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"
