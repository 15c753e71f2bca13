"""What is kept of a sweep in its `trials.jsonl`: which study it is, and the trials that have ended in it."""

import warnings
from dataclasses import asdict

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from pipeline.artifacts.trials import EndedTrial, KeptStudy, State, study_path
from pipeline.corpus.ids import Corpus
from pipeline.lm.record import EpochRecord
from pipeline.project.console import UserError
from pipeline.settings.schema import CorpusSizes
from pipeline.sweeps.space import draw
from pipeline.sweeps.sweep import Sweep


def identity(sweep: Sweep, kept: KeptStudy | None, corpus: Corpus | None) -> KeptStudy:
    """This sweep's study on the given corpus or, without one, on the kept study's corpus; no trials included.

    Raises UserError if a study is kept that this one does not continue.
    """
    if corpus:
        sizes = {f"{split}_tokens": len(ids) for split, ids in corpus.splits().items()}
        data, of = corpus.fingerprint, CorpusSizes(**sizes, vocabulary_size=len(corpus.vocabulary))
    else:
        assert kept
        data, of = kept.data_sha256, kept.corpus
    name = sweep.study_name(data)
    if kept and kept.ended and kept.name not in (name, *sweep.earlier_names(data)):
        path = study_path(sweep.name)
        raise UserError(
            f"{path} is of another study than {sweep.path}, {kept.name}: bring back its settings or its corpus, or move"
            f" {path.parent} away to start anew"
        )
    return KeptStudy(name=name, data_sha256=data, corpus=of, trials=sweep.trials)


def number_of(trial: FrozenTrial) -> int:
    return int(trial.user_attrs["trial"])


def as_ended(trial: FrozenTrial, sweep: Sweep) -> EndedTrial:
    """A trial that has ended, in our form."""
    failure = trial.user_attrs.get("failure", "")
    state: State = "diverged" if failure else "complete" if trial.state == TrialState.COMPLETE else "pruned"
    return EndedTrial(
        number=number_of(trial),
        state=state,
        group=sweep.group_name(trial.params),
        picked=trial.params,
        settings=sweep.settings(trial.params),
        history=[EpochRecord(**record) for record in trial.user_attrs.get("history", [])],
        failure=failure,
        test_perplexity=trial.user_attrs.get("test_perplexity"),
    )


def as_frozen(trial: EndedTrial, sweep: Sweep) -> FrozenTrial:
    """A trial that has ended, in Optuna's form. Raises ValueError if it was not picked from the sweep's space."""
    fixed = FixedTrial(trial.picked)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of what `create_trial` refuses
        draw(sweep.space, fixed)
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
        distributions=fixed.distributions,
        user_attrs={name: value for name, value in attributes.items() if value},
        intermediate_values={record.epoch: record.valid_perplexity for record in trial.history},
    )
