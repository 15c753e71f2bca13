"""Bring MLflow up to date with every finished training run in `results/models`.

Runs that DVC or git restored took place elsewhere or earlier; runs that ended while the tracking server was down never
reached it. MLflow gets both from `history.csv` and `metrics.json`, from dvc.lock and git, and from weights and ids if
they exist: a fresh clone is enough. A run that has to be created gets the original times of its training and the tag
`restored`. A model that is being trained right now is left alone.
"""

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path

from pipeline.artifacts.checkpoint import checkpoint_path, fingerprint, is_being_trained, release, training_id
from pipeline.artifacts.dvc_lock import LockedStage, dvc_md5, read_lock
from pipeline.artifacts.history import history_path, read_history
from pipeline.artifacts.metrics import mismatch, read_corpus_sizes, read_metrics
from pipeline.artifacts.weights import read_description, weights_path
from pipeline.corpus.ids import Corpus, load_corpus
from pipeline.lm.record import EpochRecord, is_whole
from pipeline.lm.settings import Settings
from pipeline.project.console import UserError, run, say, warn
from pipeline.project.files import CORPUS_METRICS, MODELS, PARAMS, PROCESSED
from pipeline.settings.params import load_params, read_text
from pipeline.settings.schema import CorpusSizes, Params
from pipeline.tracking.appearance import read_params
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.faults import AGAIN
from pipeline.tracking.finished import finished_teachers, publish_finished
from pipeline.tracking.notes import describe_experiment
from pipeline.tracking.origin import WEIGHTS_MD5, digests_of_data, last_commit_of, text_at
from pipeline.tracking.registry import register
from pipeline.tracking.store import prepare_store

Stages = dict[str, LockedStage]
CachedCorpus = Callable[[], tuple[Corpus, str] | None]  # `local_corpus`, cached


def restore() -> list[str]:
    """Returns the models of which something was missing in MLflow. Raises UserError if it cannot be written to."""
    prepare_store()
    params, stages = load_params(), read_lock()
    cached_corpus = cache(local_corpus)  # loaded once, and only if a model has weights
    restored = []
    for history_file in sorted(MODELS.glob("*/history.csv")):
        name = history_file.parent.name
        if is_being_trained(name):
            say(f"{name} is being trained: left alone")
            continue
        try:
            facts, history, files = find_training(name, stages, params, cached_corpus)
            figures = final_figures(name, history)
            teachers = list(finished_teachers(facts))
        except (UserError, OSError) as error:
            warn(f"{name} is left out: {error}")
            continue
        for teacher in teachers:
            _, missing = publish_finished(*teacher, None)
            restored += [teacher[0].model] if missing else []
        if not is_whole(history, facts.settings):
            continue  # interrupted: it is published when it is resumed
        run_id, missing = publish_finished(facts, history, files, figures)
        if facts.data_sha256 and figures:
            register(facts, run_id, weights_path(name), figures["valid_perplexity"])
        release(name)
        if missing:
            restored.append(name)
    describe_experiment()
    return restored


def find_training(
    name: str, stages: Stages, params: Params, cached_corpus: CachedCorpus
) -> tuple[RunFacts, list[EpochRecord], list[Path]]:
    """What is known about a model's training run, its epochs, and the files that belong to it. Raises UserError.

    Files that match dvc.lock were trained with the settings recorded there. Otherwise the training run was started
    without DVC, and its settings are those stored with its weights or, without weights, those in params.yaml.
    """
    stage = stages.get(f"train@{name}", LockedStage())
    history_file, weights_file = history_path(name), weights_path(name)
    history = read_history(history_file)
    locked = stage.made(history_file)
    files = [file for file in (history_file, weights_file) if (stage.made(file) if locked else file.exists())]
    weights = read_description(weights_file) if weights_file in files else None
    identity = weights.fingerprint if weights else None
    tags, sizes, ids = recorded_of(name, stages) if locked else ({}, None, None)
    settings = stage.settings(name) if locked else weights.settings if weights else params.model(name)
    commit = last_commit_of(history_file)
    if commit:
        tags |= {"mlflow.source.name": str(history_file), "mlflow.source.git.commit": commit}
    text = params_of(name, settings, commit)
    if trained := read_params(text) if text else None:
        tags["recipe"] = trained.recipe
    facts = RunFacts(
        name,
        identity,
        settings,
        corpus_of(identity, settings, ids, cached_corpus) if identity else None,
        tags,
        AGAIN,
        training_id=training_id(checkpoint_path(name, identity)) if identity else None,
        params=text,
        corpus_name=(trained or params).preprocess.corpus,
        sizes=sizes,
        trained_on=weights.data_sha256 if weights and not cached_corpus() else None,
    )
    return facts, history, files


def recorded_of(name: str, stages: Stages) -> tuple[dict[str, str], CorpusSizes | None, str | None]:
    """What dvc.lock records of a model's training: digests for tags, the corpus's sizes, and the digest of its ids."""
    stage = stages[f"train@{name}"]
    tags, sizes = {}, None
    if ids := stage.md5(PROCESSED):
        tags, sizes = digests_of_data(ids, stages), sizes_of(ids, stages)
    if digest := stage.md5(weights_path(name)):
        tags[WEIGHTS_MD5] = digest
    return tags, sizes, ids


def params_of(name: str, settings: Settings, commit: str) -> str | None:
    """The params.yaml of the commit that brought a training run, or today's, if it has the run's settings."""
    for text in (text_at(commit, PARAMS) if commit else "", read_text(PARAMS)):
        if (params := read_params(text)) and params.models.get(name) == settings:
            return text
    return None


def sizes_of(ids: str, stages: Stages) -> CorpusSizes | None:
    """The sizes of the corpus whose ids have this digest, if the local sizes are of that corpus."""
    stage = stages.get("preprocess", LockedStage())
    return read_corpus_sizes() if stage.md5(PROCESSED) == ids and stage.made(CORPUS_METRICS) else None


def corpus_of(identity: str, settings: Settings, ids: str | None, cached_corpus: CachedCorpus) -> Corpus | None:
    """The local corpus, if these weights or, if DVC knows them, these ids belong to it."""
    if not (found := cached_corpus()):
        return None
    corpus, digest = found
    same = ids == digest if ids else identity == fingerprint(settings, corpus.fingerprint)
    return corpus if same else None


def local_corpus() -> tuple[Corpus, str] | None:
    """The corpus in data/processed with its digest in DVC, if it is complete."""
    try:
        return load_corpus(), dvc_md5(PROCESSED)
    except UserError:
        return None


def final_figures(name: str, history: list[EpochRecord]) -> dict[str, float] | None:
    """The final figures, or None if the model has none or only those of an earlier training run."""
    try:
        metrics = read_metrics(name)
    except UserError:
        return None
    return None if mismatch(metrics, history) else metrics.figures()


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.restore", description=__doc__).parse_args()
    restored = restore()
    say(f"MLflow: restored {', '.join(restored)}" if restored else "MLflow: nothing to restore")


if __name__ == "__main__":
    run(main)
