"""The tables of a sweep over seeds: the spread within groups, and the differences between them."""

import hashlib
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from pipeline.reporting.spread import Group, difference, spread

MOST_COMPARED = 10  # groups, the best by validation perplexity
DECIMALS = 4
LONGEST = 180  # letters of a group's name, of the 250 that MLflow takes


def spread_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """A row for each group and split."""
    rows = []
    for group in groups:
        for split, by_seed in group.perplexities.items():
            found = spread(by_seed.values())
            deviation = found.standard_deviation
            rows.append(
                {
                    "group": group.name,
                    "split": split,
                    "n": found.n,
                    "mean": round(found.mean, DECIMALS),
                    "standard_deviation": None if deviation is None else round(deviation, DECIMALS),
                    "low": round(found.low, DECIMALS),
                    "high": round(found.high, DECIMALS),
                }
            )
    return rows


def difference_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """A row for each pair of groups and split: by how much `other` is above `group`, with the 95% interval."""
    ranked = sorted(groups, key=lambda one: fmean(one.perplexities["valid"].values()))[:MOST_COMPARED]
    rows = []
    for group, other in combinations(ranked, 2):
        for split in other.perplexities:
            if found := difference(other, group, split):
                rows.append(
                    {
                        "group": group.name,
                        "other": other.name,
                        "split": split,
                        "difference": round(found.mean, DECIMALS),
                        "low_95": round(found.mean - found.margin, DECIMALS),
                        "high_95": round(found.mean + found.margin, DECIMALS),
                        "n": found.n,
                        "paired": str(found.paired).lower(),
                    }
                )
    return rows


def group_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Mean and standard deviation of each group, by names that MLflow takes."""
    metrics = {}
    for row in spread_rows(groups):
        place = f"{row['split']}_perplexity/{_plain(row['group'])}"
        metrics[f"mean_{place}"] = row["mean"]
        if row["standard_deviation"] is not None:
            metrics[f"standard_deviation_{place}"] = row["standard_deviation"]
    return metrics


def _plain(name: str) -> str:
    """In letters that MLflow takes; a long name ends in a digest of itself."""
    plain = "".join(letter if letter.isalnum() or letter in "_-./ " else "" for letter in name)
    return plain if len(plain) <= LONGEST else f"{plain[:LONGEST]} {hashlib.sha256(name.encode()).hexdigest()[:8]}"
