"""How far seeds move a perplexity, and whether a difference is larger than that."""

import statistics
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pipeline.artifacts.trials import EndedTrial
from pipeline.lm.settings import Settings

CONFIDENCE = 0.95


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
    paired: by seed
    """

    mean: float
    margin: float
    n: int
    paired: bool


def grouped(trials: Sequence[EndedTrial]) -> list[Group]:
    """The groups of the trials that are complete, in the order in which they come first."""
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


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> Difference | None:
    """The mean of `one` minus that of `other`, both by seed; None if there are too few values for an interval.

    Paired by seed if they share two or more; otherwise Welch's t, for unequal variances.
    """
    shared = sorted(one.keys() & other.keys())
    if paired := len(shared) > 1:
        one, other = ({seed: values[seed] for seed in shared} for values in (one, other))
    if min(len(one), len(other)) < 2:
        return None
    from scipy import stats  # takes seconds to import

    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # for values that are nearly equal
        values = [*one.values()], [*other.values()]
        test = stats.ttest_rel(*values) if paired else stats.ttest_ind(*values, equal_var=False)
        low, high = map(float, test.confidence_interval(CONFIDENCE))
    return Difference((low + high) / 2, (high - low) / 2, min(len(one), len(other)), paired)
