"""Evaluate one trained model on all three splits, with its best weights loaded into a freshly built model."""

import argparse
import math
from functools import partial
from pathlib import Path

from pipeline.artifacts.checkpoint import CODE, checkpoint_path, release, training_id
from pipeline.artifacts.code_digest import code_digest
from pipeline.artifacts.history import best_epoch, history_path, read_history
from pipeline.artifacts.metrics import Metrics, mismatch, worse_than_guessing, write_metrics
from pipeline.artifacts.weights import load_weights, weights_path
from pipeline.corpus.ids import corpus_digests, load_corpus
from pipeline.inference import dynamic_evaluation, temperature
from pipeline.lm.device import choose_device, set_up_process
from pipeline.lm.evaluation import batches_of, evaluate, perplexity
from pipeline.lm.model import num_parameters
from pipeline.lm.record import is_whole
from pipeline.project.console import UserError, naming, progress, run, say, warn
from pipeline.project.files import PARAMS, PROCESSED, SPLITS, sha256
from pipeline.project.inputs import FixedInputs, Inputs
from pipeline.settings.params import load_params, read_text
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.finished import finished_teachers, publish
from pipeline.tracking.notes import describe_experiment
from pipeline.tracking.registry import register

CODE_OF_EVALUATION = [Path("pipeline/inference/dynamic_evaluation.py"), Path("pipeline/inference/temperature.py")]


def evaluate_model(name: str) -> Metrics:
    """Perplexities of all three splits, best epoch and number of parameters; also written to metrics.json."""
    set_up_process()
    params_text, params = read_text(PARAMS), load_params()
    weights_file, history_file = weights_path(name), history_path(name)
    trained = load_weights(weights_file)
    if trained.settings != params.model(name):
        raise UserError(f"{weights_file} was trained with other settings than {PARAMS}'s: run `dvc repro train@{name}`")
    corpus = load_corpus()
    if corpus.vocabulary != trained.vocabulary:
        raise UserError(f"{weights_file} was trained on another corpus: run `dvc repro train@{name}`")
    history = read_history(history_file)
    if not is_whole(history, trained.settings):
        epochs = f"{len(history)} of {trained.settings.epochs} epochs"
        raise UserError(f"{history_file} has {epochs}: let the training end first, by `dvc repro train@{name}`")
    device = choose_device(trained.settings.device)
    model = trained.model.to(device)

    perplexities: dict[str, float] = {}
    splits = batches_of(corpus.splits(), device)
    with progress(sum(map(len, splits.values())), f"evaluate {name}", "window") as bar:
        for split, batches in splits.items():
            perplexities[f"{split}_perplexity"] = perplexity(evaluate(model, batches, bar.update))
    if settings := (params.evaluate.dynamic or {}).get(name):
        texts = {split: ids.to(device) for split, ids in corpus.splits().items()}
        windows = dynamic_evaluation.num_windows(texts, settings)
        with progress(windows, f"evaluate {name} dynamically", "window") as bar:
            for split, loss in dynamic_evaluation.dynamic_losses(model, texts, settings, bar.update).items():
                perplexities[f"{split}_perplexity_dynamic"] = perplexity(loss)
    fitted = None
    if params.evaluate.temperature:
        with progress(temperature.num_windows(splits), f"evaluate {name} at its temperature", "window") as bar:
            fitted, losses = temperature.tempered_losses(model, splits, bar.update)
        perplexities |= {f"{split}_perplexity_tempered": perplexity(loss) for split, loss in losses.items()}
    for figure, value in perplexities.items():
        if not math.isfinite(value) and "tempered" in figure:
            raise UserError(f"{figure} is {value}: no temperature suits this text: set evaluate.temperature to false")
        if not math.isfinite(value):
            key = f"evaluate.dynamic.{name}.learning_rate" if "dynamic" in figure else f"models.{name}.learning_rate"
            raise UserError(f"{figure} is {value}: lower {key} in {PARAMS}")
    metrics = Metrics(
        best_epoch=best_epoch(history).epoch,
        parameters=num_parameters(model),
        gpu=trained.gpu,
        temperature=fitted,
        **perplexities,
    )
    if reason := mismatch(metrics, history):
        raise UserError(f"{weights_file} {reason}, {history_file}: run `dvc repro --force train@{name}`")
    write_metrics(name, metrics)
    if nonsense := worse_than_guessing(metrics.figures(), len(corpus.vocabulary)):
        warn(f"{name} is {nonsense}: lower models.{name}.learning_rate in {PARAMS}")
    facts = RunFacts(
        name,
        trained.fingerprint,
        trained.settings,
        corpus,
        {"recipe": params.recipe},
        training_id=training_id(checkpoint_path(name, trained.fingerprint)),
        params=params_text,
        corpus_name=params.preprocess.corpus,
    )
    for teacher in finished_teachers(facts):
        publish(*teacher)
    if run_id := publish(facts, history, [history_file, weights_file], metrics.figures()):
        register(facts, run_id, weights_file, metrics.valid_perplexity)
        describe_experiment()
    release(name)
    return metrics


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
