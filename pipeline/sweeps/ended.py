"""Ended trials, converted between Optuna's form and ours, and what they say about the settings."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from pipeline.artifacts.trials import EndedTrial, State
from pipeline.lm.record import EpochRecord
from pipeline.sweeps.space import Choice, OneOf, Range, overrides
from pipeline.sweeps.sweep_file import Sweep
from pipeline.sweeps.words import group_name

FEWEST_FOR_IMPORTANCE = 8  # complete trials


def number_of(trial: FrozenTrial) -> int:
    return int(trial.user_attrs["trial"])


def as_ended(trial: FrozenTrial, sweep: Sweep) -> EndedTrial:
    failure = trial.user_attrs.get("failure", "")
    state: State = "diverged" if failure else "complete" if trial.state == TrialState.COMPLETE else "pruned"

    def pick(place: str, _: object) -> Any:
        return trial.params[place]

    return EndedTrial(
        number=number_of(trial),
        state=state,
        group=group_name(sweep, pick),
        picked=trial.params,
        settings=sweep.settings(pick),
        history=[EpochRecord(**record) for record in trial.user_attrs.get("history", [])],
        failure=failure,
        test_perplexity=trial.user_attrs.get("test_perplexity"),
    )


def as_frozen(trial: EndedTrial, sweep: Sweep) -> FrozenTrial:
    distributions: dict[str, BaseDistribution] = {}

    def pick(place: str, node: Range | Choice | OneOf) -> Any:
        distributions[place] = _distribution(node)
        return trial.picked[place]

    overrides(sweep.space, pick)
    complete = trial.state == "complete"
    attributes = {
        "trial": trial.number,
        "history": [asdict(record) for record in trial.history],
        "failure": trial.failure,
        "test_perplexity": trial.test_perplexity,
    }
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        value=trial.valid_perplexity if complete else None,
        params=trial.picked,
        distributions=distributions,
        user_attrs={name: value for name, value in attributes.items() if value},
        intermediate_values={record.epoch: record.valid_perplexity for record in trial.history},
    )


def _distribution(node: Range | Choice | OneOf) -> BaseDistribution:
    match node:
        case OneOf():
            return CategoricalDistribution(list(node.bundles))
        case Choice():
            return CategoricalDistribution(node.values)
        case Range() if node.whole:
            return IntDistribution(int(node.low), int(node.high), log=node.log)
    return FloatDistribution(node.low, node.high, log=node.log)


def importance(sweep: Sweep, trials: Sequence[EndedTrial]) -> dict[str, float]:
    """How much each setting matters for being among the best quarter, as shares of 1; the largest first.

    Of the complete trials, by PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255). Empty if there are too few. What is
    searched within a bundle is left out, because only some trials have it.
    """
    complete = [as_frozen(trial, sweep) for trial in trials if trial.state == "complete"]
    if len(complete) < FEWEST_FOR_IMPORTANCE:
        return {}
    study = optuna.create_study()  # in memory: the same trials give the same shares, wherever they were run
    study.add_trials(complete)
    places = [name for name, node in sweep.space.items() if isinstance(node, Range | Choice | OneOf)]
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25, evaluate_on_local=False)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # if all trials are equal
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=places)
    return {name: round(share, 6) for name, share in shares.items() if math.isfinite(share)}
