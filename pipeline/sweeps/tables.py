"""The tables of a sweep: its trials, the importance of each setting and, over seeds, the groups of trials."""

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from statistics import fmean
from typing import Any

import optuna

from pipeline.artifacts.trials import EndedTrial
from pipeline.reporting.spread import Group, difference, grouped, spread
from pipeline.sweeps.space import Searched
from pipeline.sweeps.sweep import Sweep
from pipeline.sweeps.trial import as_frozen

FEWEST_FOR_IMPORTANCE = 8  # complete trials
MOST_COMPARED = 10  # groups, the best by validation perplexity
DECIMALS = 4
LONGEST = 180  # characters of a group's name, as MLflow allows 250 for a metric's

Row = dict[str, Any]  # values by column


def best_first(trials: Sequence[EndedTrial]) -> list[EndedTrial]:
    return sorted(trials, key=lambda trial: (trial.state != "complete", trial.valid_perplexity))


def best_of(trials: Sequence[EndedTrial]) -> EndedTrial | None:
    """None if no trial is complete."""
    return next((trial for trial in best_first(trials) if trial.state == "complete"), None)


def trial_row(sweep: Sweep, trial: EndedTrial) -> Row:
    row = {
        "trial": trial.number,
        "state": trial.state,
        "epochs": len(trial.history),
        "valid_perplexity": trial.valid_perplexity if trial.history else None,
        "seconds": sum(record.seconds for record in trial.history),
    }
    if sweep.file.evaluate:
        row["test_perplexity"] = trial.test_perplexity
    tried = sweep.tried(trial.picked).items()
    return row | {f"settings.{name}" if name in row else name: value for name, value in tried}


def importance(sweep: Sweep, trials: Sequence[EndedTrial]) -> dict[str, float]:
    """How much each setting matters for being among the best quarter, as shares of 1, largest first.

    By PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255) of the complete trials; empty if they are too few. Settings
    within bundles are left out, because only some trials have them.
    """
    complete = [as_frozen(trial, sweep) for trial in trials if trial.state == "complete"]
    if len(complete) < FEWEST_FOR_IMPORTANCE:
        return {}
    study = optuna.create_study()  # in memory, with nothing but these trials
    study.add_trials(complete)
    places = [name for name, node in sweep.space.items() if isinstance(node, Searched)]
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25, evaluate_on_local=False)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # if all trials are equal
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=places)
    return {name: round(share, 6) for name, share in shares.items() if math.isfinite(share)}


def groups_of(sweep: Sweep, trials: Sequence[EndedTrial]) -> list[Group]:
    """The groups of complete trials that differ only in the seed; none if the seed is not searched."""
    return grouped(trials) if sweep.over_seeds else []


def spread_rows(groups: Sequence[Group]) -> list[Row]:
    """A row for each group and each split."""
    return [
        {"group": group.name, "split": split}
        | {name: value and round(value, DECIMALS) for name, value in asdict(spread(by_seed.values())).items()}
        for group in groups
        for split, by_seed in group.perplexities.items()
    ]


def difference_rows(groups: Sequence[Group]) -> list[Row]:
    """A row for each pair of groups and each split: `other` minus `group`, with the 95% confidence interval."""
    ranked = sorted(groups, key=lambda one: fmean(one.perplexities["valid"].values()))[:MOST_COMPARED]
    return [
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
        for group, other in combinations(ranked, 2)
        for split in other.perplexities
        if (found := difference(other, group, split))
    ]


def group_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Mean and standard deviation of each group, by the metric's name in MLflow."""
    metrics = {}
    for row in spread_rows(groups):
        place = f"{row['split']}_perplexity/{_mlflow_name(row['group'])}"
        metrics[f"mean_{place}"] = row["mean"]
        if row["standard_deviation"] is not None:
            metrics[f"standard_deviation_{place}"] = row["standard_deviation"]
    return metrics


def _mlflow_name(name: str) -> str:
    """Only the characters that MLflow allows; a name that is too long ends in a digest of itself."""
    plain = "".join(letter if letter.isalnum() or letter in "_-./ " else "" for letter in name)
    return plain if len(plain) <= LONGEST else f"{plain[:LONGEST]} {hashlib.sha256(name.encode()).hexdigest()[:8]}"
