"""How far seeds move a perplexity, and whether a difference is larger than that."""

import statistics
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pipeline.artifacts.trials import EndedTrial
from pipeline.lm.settings import Settings

CONFIDENCE = 0.95
SHAPE = ("cell", "num_layers", "hidden_size", "embedding_size", "tied_weights")


@dataclass(frozen=True)
class Group:
    """Complete trials that differ in nothing but the seed.

    settings: of one of them
    perplexities: of the best epoch's weights by split, valid and perhaps test, and by seed
    """

    name: str
    settings: Settings
    perplexities: Mapping[str, Mapping[int, float]]


@dataclass(frozen=True)
class Spread:
    """standard_deviation: with n - 1 in the denominator; None if there is a single value"""

    n: int
    mean: float
    standard_deviation: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A mean difference with its 95% interval by Student's t; `margin` is half of the interval.

    n: the pairs, or else the smaller number of values
    paired: by seed, which gives models of the same shape the same initial weights
    """

    mean: float
    margin: float
    n: int
    paired: bool


def grouped(trials: Sequence[EndedTrial]) -> list[Group]:
    """The groups of the trials that are complete, in the order of their first trials."""
    groups: dict[str, list[EndedTrial]] = {}
    for trial in trials:
        if trial.state == "complete":
            groups.setdefault(trial.group, []).append(trial)
    return [Group(name, members[0].settings, _by_split(members)) for name, members in groups.items()]


def _by_split(trials: Sequence[EndedTrial]) -> dict[str, dict[int, float]]:
    valid = {trial.settings.seed: trial.valid_perplexity for trial in trials}
    test = {trial.settings.seed: trial.test_perplexity for trial in trials if trial.test_perplexity is not None}
    return {"valid": valid} | ({"test": test} if test else {})


def spread(values: Collection[float]) -> Spread:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(len(values), statistics.fmean(values), deviation, min(values), max(values))


def difference(one: Group, other: Group, split: str) -> Difference | None:
    """The mean perplexity of `one` on a split minus that of `other`; None if there are too few values for an interval.

    Models of the same shape are paired by the seeds that they share, if there are at least two. The same seed means
    nothing for models of different shapes: those, and all others, are compared by Welch's t, for unequal variances.
    """
    ours, theirs = one.perplexities.get(split, {}), other.perplexities.get(split, {})
    shared = sorted(ours.keys() & theirs.keys())
    if paired := len(shared) > 1 and _same_shape(one.settings, other.settings):
        ours, theirs = ({seed: values[seed] for seed in shared} for values in (ours, theirs))
    if min(len(ours), len(theirs)) < 2:
        return None
    from scipy import stats  # takes seconds to import

    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # if values are nearly equal
        values = [*ours.values()], [*theirs.values()]
        test = stats.ttest_rel(*values) if paired else stats.ttest_ind(*values, equal_var=False)
        low, high = map(float, test.confidence_interval(CONFIDENCE))
    return Difference((low + high) / 2, (high - low) / 2, min(len(ours), len(theirs)), paired)


def _same_shape(one: Settings, other: Settings) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in SHAPE)
