"""Evaluate one trained model: its best weights, loaded into a freshly built model, on all three splits."""

import argparse
import json

from pipeline.console import UserError, progress, run, say
from pipeline.corpus import Corpus, load_corpus
from pipeline.files import MODELS, PARAMS, SPLITS, atomic_write
from pipeline.history import best_epoch, read_history
from pipeline.lm.batching import Batches
from pipeline.lm.device import DeviceError, choose_device, keep_freed_memory
from pipeline.lm.dynamic_evaluation import STATISTICS_BATCH_SIZE, evaluate_dynamically, gradient_scale
from pipeline.lm.evaluation import evaluate, perplexity
from pipeline.lm.model import LanguageModel, num_parameters
from pipeline.lm.settings import DynamicEvaluation
from pipeline.params import load_params
from pipeline.registry import register
from pipeline.tracking import RunFacts, publish_evaluation
from pipeline.weights import load_weights


def evaluate_model(name: str) -> dict[str, float]:
    """Perplexities of train, valid and test, best epoch and number of parameters; also written to metrics.json."""
    keep_freed_memory()
    params = load_params()
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
    if dynamic := (params.evaluate.dynamic or {}).get(name):
        metrics |= dynamic_perplexities(name, model, corpus, dynamic)
    metrics["best_epoch"] = best_epoch(history).epoch
    metrics["parameters"] = num_parameters(model)
    with atomic_write(folder / "metrics.json") as file:
        json.dump(metrics, file, indent=2)
        file.write("\n")
    facts = RunFacts(name, trained.fingerprint, settings, corpus, {"recipe": params.recipe})
    if run_id := publish_evaluation(facts, history, [PARAMS, history_file, weights_file], metrics):
        register(facts, run_id, weights_file, metrics["valid_perplexity"])
    return metrics


def dynamic_perplexities(
    name: str, model: LanguageModel, corpus: Corpus, settings: DynamicEvaluation
) -> dict[str, float]:
    """Perplexities of valid and test under a model that goes on learning from them."""
    texts = {split: getattr(corpus, split).to(next(model.parameters()).device) for split in SPLITS}
    train = texts.pop("train")
    windows = len(Batches(train, STATISTICS_BATCH_SIZE, settings.bptt)) + sum(
        len(Batches(text, 1, settings.bptt)) for text in texts.values()
    )
    with progress(windows, f"evaluate {name} dynamically", "window") as bar:
        scale = gradient_scale(model, train, settings.bptt, bar.update)
        return {
            f"{split}_perplexity_dynamic": perplexity(evaluate_dynamically(model, text, scale, settings, bar.update))
            for split, text in texts.items()
        }


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
    if "test_perplexity_dynamic" in metrics:
        valid, test = (metrics[f"{split}_perplexity_dynamic"] for split in ("valid", "test"))
        say(f"{arguments.model}: perplexity under dynamic evaluation  valid {valid:.2f}  test {test:.2f}")


if __name__ == "__main__":
    run(main)
