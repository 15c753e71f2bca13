"""How far seeds move a perplexity, and what is left of a difference beyond that."""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

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
    """standard_deviation: with n - 1 in the denominator; None of a single value"""

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
    """The mean of `one` less that of `other`, both by seed; None if there are too few values for an interval.

    Over the seeds that both have, pair by pair, if there are two; otherwise by Welch's t, for unequal variances.
    """
    shared = sorted(one.keys() & other.keys())
    if len(shared) > 1:
        differences = [one[seed] - other[seed] for seed in shared]
        error = statistics.stdev(differences) / math.sqrt(len(shared))
        return Difference(statistics.fmean(differences), _margin(error, len(shared) - 1), len(shared), paired=True)
    if len(one) < 2 or len(other) < 2:
        return None
    squares = [statistics.variance(values.values()) / len(values) for values in (one, other)]
    error, mean = math.sqrt(sum(squares)), statistics.fmean(one.values()) - statistics.fmean(other.values())
    weights = sum(square**2 / (len(values) - 1) for square, values in zip(squares, (one, other), strict=True))
    freedom = sum(squares) ** 2 / weights if weights else math.inf  # Welch and Satterthwaite
    return Difference(mean, _margin(error, freedom), min(len(one), len(other)), paired=False)


def _margin(standard_error: float, freedom: float) -> float:
    return standard_error * float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
