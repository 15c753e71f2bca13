"""Evaluate one trained model on all three splits, with its best weights loaded into a newly built model."""

import argparse
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipeline.artifacts.checkpoint import CODE, checkpoint_path, release, training_id
from pipeline.artifacts.code_digest import code_digest
from pipeline.artifacts.history import best_epoch, history_path, read_history
from pipeline.artifacts.metrics import Metrics, mismatch, worse_than_guessing, write_metrics
from pipeline.artifacts.weights import TrainedModel, load_weights, weights_path
from pipeline.corpus.ids import Corpus, corpus_digests, load_corpus
from pipeline.inference import dynamic_evaluation, temperature
from pipeline.lm.device import choose_device, set_up_process
from pipeline.lm.evaluation import batches_of, evaluate, perplexity
from pipeline.lm.model import num_parameters
from pipeline.lm.record import EpochRecord, is_whole
from pipeline.project.console import UserError, naming, progress, run, say, warn
from pipeline.project.files import PARAMS, PROCESSED, SPLITS, sha256
from pipeline.project.inputs import FixedInputs, Inputs
from pipeline.settings.params import load_params, read_text
from pipeline.settings.schema import Params
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.finished import finished_teachers, publish
from pipeline.tracking.notes import describe_experiment
from pipeline.tracking.registry import register

CODE_OF_EVALUATION = [Path("pipeline/inference/dynamic_evaluation.py"), Path("pipeline/inference/temperature.py")]
NO_TEMPERATURE = "no temperature suits this text: set evaluate.temperature to false"


class Evaluated(NamedTuple):
    """A trained model, and what it is evaluated with."""

    name: str
    params_text: str
    params: Params
    trained: TrainedModel
    corpus: Corpus
    history: list[EpochRecord]


def evaluate_model(name: str) -> Metrics:
    """Evaluate a trained model -> its figures, which are also written to metrics.json and to MLflow."""
    set_up_process()
    evaluated = load(name)
    metrics = measure(evaluated)
    if reason := mismatch(metrics, evaluated.history):
        file = weights_path(name)
        raise UserError(f"{file} {reason}, {history_path(name)}: run `dvc repro --force train@{name}`")
    write_metrics(name, metrics)
    if nonsense := worse_than_guessing(metrics.figures(), len(evaluated.corpus.vocabulary)):
        warn(f"{name} is {nonsense}: lower models.{name}.learning_rate in {PARAMS}")
    publish_metrics(evaluated, metrics)
    release(name)
    return metrics


def load(name: str) -> Evaluated:
    """A model with everything its evaluation needs. Raises UserError unless they belong together."""
    text, params, file = read_text(PARAMS), load_params(), weights_path(name)
    trained = load_weights(file)
    if trained.settings != params.model(name):
        raise UserError(f"{file} was trained with other settings than {PARAMS}'s: run `dvc repro train@{name}`")
    corpus = load_corpus()
    if corpus.vocabulary != trained.vocabulary:
        raise UserError(f"{file} was trained on another corpus: run `dvc repro train@{name}`")
    history = read_history(history_path(name))
    if not is_whole(history, trained.settings):
        epochs = f"{len(history)} of {trained.settings.epochs} epochs"
        raise UserError(f"{history_path(name)} has {epochs}: finish the training first with `dvc repro train@{name}`")
    return Evaluated(name, text, params, trained, corpus, history)


def measure(evaluated: Evaluated) -> Metrics:
    """Perplexities of all three splits: static and, where params.yaml asks for it, dynamic and at a temperature.

    Raises UserError if one is not finite.
    """
    name, trained, how = evaluated.name, evaluated.trained, evaluated.params.evaluate
    device = choose_device(trained.settings.device)
    model = trained.model.to(device)
    splits = batches_of(evaluated.corpus.splits(), device)
    with progress(sum(map(len, splits.values())), f"evaluate {name}", "window") as bar:
        losses = {split: evaluate(model, batches, bar.update) for split, batches in splits.items()}
    figures = perplexities(losses, "", f"lower models.{name}.learning_rate in {PARAMS}")
    if settings := (how.dynamic or {}).get(name):
        texts = {split: ids.to(device) for split, ids in evaluated.corpus.splits().items()}
        windows = dynamic_evaluation.num_windows(texts, settings)
        with progress(windows, f"evaluate {name} dynamically", "window") as bar:
            losses = dynamic_evaluation.dynamic_losses(model, texts, settings, bar.update)
        figures |= perplexities(losses, "_dynamic", f"lower evaluate.dynamic.{name}.learning_rate in {PARAMS}")
    fitted = None
    if how.temperature:
        with progress(temperature.num_windows(splits), f"evaluate {name} at its temperature", "window") as bar:
            fitted, losses = temperature.tempered_losses(model, splits, bar.update)
        figures |= perplexities(losses, "_tempered", NO_TEMPERATURE)
    best = best_epoch(evaluated.history).epoch
    return Metrics(best_epoch=best, parameters=num_parameters(model), gpu=trained.gpu, temperature=fitted, **figures)


def perplexities(losses: Mapping[str, float], kind: str, remedy: str) -> dict[str, float]:
    """The perplexity of each split, under its name in metrics.json. Raises UserError if one is not finite."""
    figures = {f"{split}_perplexity{kind}": perplexity(loss) for split, loss in losses.items()}
    for figure, value in figures.items():
        if not math.isfinite(value):
            raise UserError(f"{figure} is {value}: {remedy}")
    return figures


def publish_metrics(evaluated: Evaluated, metrics: Metrics) -> None:
    """Write a model's figures to MLflow, and what is missing there of its teachers."""
    name, trained = evaluated.name, evaluated.trained
    facts = RunFacts(
        name,
        trained.fingerprint,
        trained.settings,
        evaluated.corpus,
        {"recipe": evaluated.params.recipe},
        training_id=training_id(checkpoint_path(name, trained.fingerprint)),
        params=evaluated.params_text,
        corpus_name=evaluated.params.preprocess.corpus,
    )
    for teacher in finished_teachers(facts):
        publish(*teacher)
    weights_file = weights_path(name)
    if run_id := publish(facts, evaluated.history, [history_path(name), weights_file], metrics.figures()):
        register(facts, run_id, weights_file, metrics.valid_perplexity)
        describe_experiment()


def evaluation_inputs(name: str) -> Inputs:
    """Everything that a model's evaluation depends on, in its current state."""
    params, files = load_params(), [weights_path(name), history_path(name), *CODE_OF_EVALUATION]
    how = params.evaluate
    return {
        PARAMS.name: (params.model(name), (how.dynamic or {}).get(name), how.temperature),
        PROCESSED.as_posix(): corpus_digests(),
        "pipeline/lm": code_digest(CODE),
    } | {path.as_posix(): sha256(path) if path.exists() else None for path in files}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluate", description=__doc__)
    parser.add_argument("model", help="a trained model, such as lstm_dropout")
    name = parser.parse_args().model
    with naming(name), FixedInputs(f"evaluate {name}", partial(evaluation_inputs, name)):
        figures = evaluate_model(name).figures()
    perplexities = "  ".join(f"{split} {figures[f'{split}_perplexity']:.2f}" for split in SPLITS)
    say(f"{name}: perplexity  {perplexities}  (weights of epoch {figures['best_epoch']})")
    if "test_perplexity_dynamic" in figures:
        valid, test = (figures[f"{split}_perplexity_dynamic"] for split in ("valid", "test"))
        say(f"{name}: perplexity under dynamic evaluation  valid {valid:.2f}  test {test:.2f}")
    if "temperature" in figures:
        valid, test = (figures[f"{split}_perplexity_tempered"] for split in ("valid", "test"))
        say(f"{name}: perplexity at temperature {figures['temperature']:.3f}  valid {valid:.2f}  test {test:.2f}")


if __name__ == "__main__":
    run(main)
