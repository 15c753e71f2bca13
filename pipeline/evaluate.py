"""Evaluate one trained model: its best weights, loaded into a freshly built model, on all three splits."""

import argparse
import math

from pipeline.artifacts.history import best_epoch, history_path, read_history
from pipeline.artifacts.metrics import Metrics, write_metrics
from pipeline.artifacts.weights import load_weights, weights_path
from pipeline.corpus.ids import load_corpus
from pipeline.inference.dynamic_evaluation import dynamic_losses, num_windows
from pipeline.lm.device import choose_device, keep_freed_memory
from pipeline.lm.evaluation import batches_of, evaluate, perplexity
from pipeline.lm.model import num_parameters
from pipeline.project.console import UserError, naming, progress, run, say
from pipeline.project.files import PARAMS, SPLITS
from pipeline.project.params import load_params
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.publisher import publish_evaluation
from pipeline.tracking.registry import register


def evaluate_model(name: str) -> Metrics:
    """Perplexities of train, valid and test, best epoch and number of parameters; also written to metrics.json."""
    keep_freed_memory()
    params = load_params()
    weights_file, history_file = weights_path(name), history_path(name)
    trained = load_weights(weights_file)
    corpus = load_corpus()
    if corpus.vocabulary != trained.vocabulary:
        raise UserError(f"{weights_file} was trained on another corpus: run `dvc repro`")
    history = read_history(history_file)
    device = choose_device(trained.settings.device)
    model = trained.model.to(device)

    perplexities: dict[str, float] = {}
    splits = batches_of(corpus.splits(), trained.settings, device)
    with progress(sum(map(len, splits.values())), f"evaluate {name}", "window") as bar:
        for split, batches in splits.items():
            perplexities[f"{split}_perplexity"] = perplexity(evaluate(model, batches, bar.update))
    if settings := (params.evaluate.dynamic or {}).get(name):
        texts = {split: ids.to(device) for split, ids in corpus.splits().items()}
        with progress(num_windows(texts, settings), f"evaluate {name} dynamically", "window") as bar:
            for split, loss in dynamic_losses(model, texts, settings, bar.update).items():
                perplexities[f"{split}_perplexity_dynamic"] = perplexity(loss)
    for figure, value in perplexities.items():
        if not math.isfinite(value):
            key = f"evaluate.dynamic.{name}.learning_rate" if "dynamic" in figure else f"models.{name}.learning_rate"
            raise UserError(f"{figure} is {value}: lower {key} in {PARAMS}")
    metrics = Metrics(best_epoch=best_epoch(history).epoch, parameters=num_parameters(model), **perplexities)
    write_metrics(name, metrics)
    facts = RunFacts(name, trained.fingerprint, trained.settings, corpus, {"recipe": params.recipe})
    if run_id := publish_evaluation(facts, history, [PARAMS, history_file, weights_file], metrics.figures()):
        register(facts, run_id, weights_file, metrics.valid_perplexity)
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluate", description=__doc__)
    parser.add_argument("model", help="a trained model, such as lstm_dropout")
    name = parser.parse_args().model
    with naming(name):
        figures = evaluate_model(name).figures()
    perplexities = "  ".join(f"{split} {figures[f'{split}_perplexity']:.2f}" for split in SPLITS)
    say(f"{name}: perplexity  {perplexities}  (weights of epoch {figures['best_epoch']})")
    if "test_perplexity_dynamic" in figures:
        valid, test = (figures[f"{split}_perplexity_dynamic"] for split in ("valid", "test"))
        say(f"{name}: perplexity under dynamic evaluation  valid {valid:.2f}  test {test:.2f}")


if __name__ == "__main__":
    run(main)
