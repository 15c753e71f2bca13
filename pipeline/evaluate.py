"""Evaluate one trained model: its best weights, loaded into a freshly built model, on all three splits."""

import argparse
import json

from pipeline.console import UserError, progress, run, say
from pipeline.corpus import load_corpus
from pipeline.files import MODELS, PARAMS, SPLITS, atomic_write
from pipeline.history import best_epoch, read_history
from pipeline.lm.batching import Batches
from pipeline.lm.device import DeviceError, choose_device
from pipeline.lm.evaluation import evaluate, perplexity
from pipeline.lm.model import num_parameters
from pipeline.registry import register
from pipeline.tracking import RunFacts, publish_evaluation
from pipeline.weights import load_weights


def evaluate_model(name: str) -> dict[str, float]:
    """Perplexities of train, valid and test, best epoch and number of parameters; also written to metrics.json."""
    folder = MODELS / name
    weights_file, history_file = folder / "model.safetensors", folder / "history.csv"
    trained = load_weights(weights_file)
    corpus = load_corpus()
    if corpus.vocabulary != trained.vocabulary:
        raise UserError(f"{weights_file} was trained on another corpus: run `dvc repro`")
    history = read_history(history_file)
    settings = trained.settings
    device = choose_device(settings.device)
    model = trained.model.to(device)

    metrics: dict[str, float] = {}
    splits = {s: Batches(getattr(corpus, s).to(device), settings.batch_size, settings.bptt) for s in SPLITS}
    with progress(sum(map(len, splits.values())), f"evaluate {name}", "window") as bar:
        for split, batches in splits.items():
            metrics[f"{split}_perplexity"] = perplexity(evaluate(model, batches, bar.update))
    metrics["best_epoch"] = best_epoch(history).epoch
    metrics["parameters"] = num_parameters(model)
    with atomic_write(folder / "metrics.json") as file:
        json.dump(metrics, file, indent=2)
        file.write("\n")
    facts = RunFacts(name, trained.fingerprint, settings, corpus)
    if run_id := publish_evaluation(facts, history, [PARAMS, history_file, weights_file], metrics):
        register(facts, run_id, weights_file, metrics["valid_perplexity"])
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluate", description=__doc__)
    parser.add_argument("model", help="a trained model, such as lstm_dropout")
    arguments = parser.parse_args()
    try:
        metrics = evaluate_model(arguments.model)
    except DeviceError as error:
        raise UserError(f"{arguments.model}: {error}") from None
    perplexities = "  ".join(f"{split} {metrics[f'{split}_perplexity']:.2f}" for split in SPLITS)
    say(f"{arguments.model}: perplexity  {perplexities}  (weights of epoch {metrics['best_epoch']})")


if __name__ == "__main__":
    run(main)
