"""Evaluate the teachers of a model of params.yaml, each by itself and all together.

Writes docs/experiments/runs/teacher-1.csv and .json (and so on), and teachers.json for all together. The weights are in
.checkpoints once the model has been trained. Numbers are those of the model: the pages have those of `lstm_dropout`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.artifacts.checkpoint import checkpoint_path, fingerprint, load_checkpoint
from pipeline.artifacts.history import best_epoch, write_history
from pipeline.artifacts.teachers import TEACHER, named_teachers
from pipeline.corpus.ids import Corpus, load_corpus
from pipeline.lm.evaluation import batches_of, evaluate, perplexity
from pipeline.lm.model import LanguageModel, num_parameters
from pipeline.lm.record import EpochRecord, is_whole
from pipeline.lm.settings import Settings
from pipeline.project.console import UserError, progress, run, say
from pipeline.project.files import SPLITS, atomic_write
from pipeline.settings.params import load_params

RUNS = Path("docs/experiments/runs")


class Ensemble(nn.Module):
    """Models that predict together: the mean of their logits, that is, the geometric mean of their probabilities."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, inputs: Tensor, states: Sequence[Any] | None = None) -> tuple[Tensor, list[Any]]:
        """inputs [time, columns] -> logits [time, columns, vocab], and the state of each model."""
        pairs = zip(self.models, states or [None] * len(self.models), strict=True)
        logits, after = zip(*(model(inputs, state) for model, state in pairs), strict=True)
        return torch.stack(logits).mean(0), list(after)


def trained(title: str, settings: Settings, corpus: Corpus) -> tuple[LanguageModel, list[EpochRecord]]:
    """A teacher with its best weights, and its history. Raises UserError if it has not been trained here."""
    saved = load_checkpoint(checkpoint_path(TEACHER, fingerprint(settings, corpus.fingerprint)))
    history = [EpochRecord(**record) for record in saved["history"]] if saved else []
    if not saved or not is_whole(history, settings):
        raise UserError(f"{title} has not been trained here: train the model that it teaches first")
    model = LanguageModel(settings, len(corpus.vocabulary))
    model.load_state_dict(saved["best_weights"])
    return model, history


def perplexities(name: str, model: nn.Module, corpus: Corpus) -> dict[str, float]:
    """Of the three splits, under the names of metrics.json."""
    splits = batches_of(corpus.splits(), torch.device("cpu"))
    with progress(sum(map(len, splits.values())), f"evaluate {name}", "window") as bar:
        found = {split: perplexity(evaluate(model, splits[split], bar.update)) for split in SPLITS}
    say(f"{name}: perplexity  " + "  ".join(f"{split} {figure:.2f}" for split, figure in found.items()))
    return {f"{split}_perplexity": figure for split, figure in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model with teachers, such as lstm_dropout")
    name, corpus = parser.parse_args().model, load_corpus()
    teachers = [trained(title, wanted, corpus) for title, wanted in named_teachers(name, load_params().model(name))]
    models: dict[str, nn.Module] = {"teachers": Ensemble([model for model, _ in teachers])}
    facts: dict[str, dict[str, float]] = {"teachers": {}}
    for number, (model, history) in enumerate(teachers, start=1):
        title = f"teacher-{number}"
        models[title], facts[title] = model, {"best_epoch": best_epoch(history).epoch}
        write_history(RUNS / f"{title}.csv", history)
    for title, predictor in models.items():
        figures = perplexities(title, predictor, corpus) | facts[title] | {"parameters": num_parameters(predictor)}
        with atomic_write(RUNS / f"{title}.json") as file:
            file.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
