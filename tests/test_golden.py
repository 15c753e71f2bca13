"""The first steps of the default models, of those of `best` and `fast` and of one with teachers, pinned in golden.json:
no refactoring and no change of speed may move them.

`python -m pipeline.accept` takes this as its proof. When a change is meant to move them, `python -m tests.test_golden`
writes golden.json anew.
"""

import json
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.artifacts.weights import load_weights, save_weights
from pipeline.corpus.ids import Corpus, load_corpus, write_corpus
from pipeline.corpus.numbered import NumberedText
from pipeline.corpus.sample import write
from pipeline.corpus.vocabulary import build_vocabulary
from pipeline.corpus.words import read_tokens
from pipeline.inference.dynamic_evaluation import dynamic_losses
from pipeline.lm.batching import Batches
from pipeline.lm.evaluation import evaluate
from pipeline.lm.model import LanguageModel, build_model
from pipeline.lm.settings import DynamicEvaluation, Settings
from pipeline.lm.training import Training
from pipeline.settings.overlay import overlay
from tests.small import KEPT_SETTINGS, ROOT, that_have_read

GOLDEN_FILE = ROOT / "tests/golden.json"
GOLDEN: dict[str, dict[str, Any]] = json.loads(GOLDEN_FILE.read_text()) if GOLDEN_FILE.exists() else {}
WINDOWS = (1, 2, 5, 10, 20)
DYNAMIC = DynamicEvaluation(learning_rate=1e-3, decay=0.01, epsilon=1e-3, bptt=5)


def golden(settings: Settings, folder: Path) -> dict[str, Any]:
    """What is pinned of a model, in float32 on the CPU, on the sample corpus, all in nats a token:

    losses: the mean over the first so many windows of training, dropout included
    evaluated: the mean over valid after those windows, as the weights give it when they are back from their file
    evaluated_dynamically: the same for the first tokens of test
    """
    settings = settings.model_copy(update={"device": "cpu", "precision": "float32"})
    corpus = sample_corpus(folder)
    losses, training = trajectory(settings, corpus)
    file = folder / "model.safetensors"
    weights = {name: weight.clone() for name, weight in training.model.state_dict().items()}
    save_weights(file, weights, settings, corpus.vocabulary, fingerprint="")
    model = load_weights(file).model
    return {"settings": settings.model_dump(), "losses": losses} | evaluated(model, settings, corpus, training.device)


def trajectory(settings: Settings, corpus: Corpus) -> tuple[list[float], Training]:
    """The mean loss over the first so many windows, and the training of the most of them."""
    losses = []
    for windows in WINDOWS:
        text = corpus.train[: windows * settings.batch_size * settings.bptt + 1]
        untrained = [build_model(teacher, len(corpus.vocabulary)) for teacher in settings.teachers]
        teachers = that_have_read(text, settings, untrained)
        training = Training(settings, text, corpus.valid, len(corpus.vocabulary), teachers)
        torch.manual_seed(settings.seed)
        losses.append(training.train_epoch(epoch=1)[0])
    return losses, training


def evaluated(model: LanguageModel, settings: Settings, corpus: Corpus, device: torch.device) -> dict[str, float]:
    """Static and dynamic evaluation, as in `golden`."""
    splits = {"train": corpus.train[:5000], "valid": corpus.valid[:500], "test": corpus.test[:500]}
    texts = {split: ids.to(device) for split, ids in splits.items()}
    return {
        "evaluated": evaluate(model, Batches(corpus.valid.to(device), settings.batch_size, settings.bptt)),
        "evaluated_dynamically": dynamic_losses(model, texts, DYNAMIC)["test"],
    }


def sample_corpus(folder: Path) -> Corpus:
    """The sample corpus, from its text through its ids on disk."""
    write(folder)
    texts = {split: folder / f"sample.{split}.txt" for split in ("train", "valid", "test")}
    read = {split: NumberedText(split, read_tokens(path, ""), BytesIO()) for split, path in texts.items()}
    vocabulary = build_vocabulary(read["train"].counts)
    write_corpus({split: text.ids(vocabulary, "") for split, text in read.items()}, vocabulary, folder)
    return load_corpus(folder)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_first_steps_and_the_evaluation_are_as_they_were(name: str, tmp_path: Path) -> None:
    pinned = GOLDEN[name]
    now = golden(Settings.model_validate(pinned["settings"]), tmp_path)
    assert now["losses"] == pytest.approx(pinned["losses"], rel=1e-4)
    assert now["evaluated"] == pytest.approx(pinned["evaluated"], rel=1e-3)
    assert now["evaluated_dynamically"] == pytest.approx(pinned["evaluated_dynamically"], rel=1e-3)


@pytest.mark.parametrize("name", GOLDEN)
def test_rounding_does_not_move_the_first_steps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another device rounds differently, and is compared with what is pinned (`test_gpu`)."""
    pinned, draw, rounded = GOLDEN[name], nn.init.uniform_, []

    def draw_and_round(weight: Tensor, low: float, high: float) -> Tensor:
        rounded.append(weight)
        draw(weight, low, high).data *= 1 + 1e-6 * torch.linspace(-1, 1, weight.numel()).view_as(weight)
        return weight

    monkeypatch.setattr(nn.init, "uniform_", draw_and_round)
    losses, _ = trajectory(Settings.model_validate(pinned["settings"]), sample_corpus(tmp_path))
    assert losses == pytest.approx(pinned["losses"], rel=1e-4)
    assert rounded


def taught(settings: Settings) -> Settings:
    """The same model with two teachers, an LSTM and a GRU, that predict something definite even untrained.

    With larger weights still, untrained models are chaotic: they make something else of every rounding.
    """
    teachers = [{"init_range": 0.3, "seed": 2}, {"init_range": 0.3, "seed": 3, "cell": "gru"}]
    return Settings.model_validate(
        overlay(settings.model_dump(), {"distillation": {"share": 0.5, "teachers": teachers}})
    )


def pin() -> None:
    models = {
        run.removeprefix("default-"): Settings.model_validate(settings | {"distillation": None})
        for run, settings in KEPT_SETTINGS.items()
        if run.startswith(("default-", "best-", "fast-"))
    }
    models["gru_textbook"] = models["gru_dropout"].model_copy(update={"cell": "gru_textbook"})
    models["taught"] = taught(models["best-lstm_dropout"])
    with tempfile.TemporaryDirectory() as folder:
        pinned = {name: golden(settings, Path(folder)) for name, settings in models.items()}
    GOLDEN_FILE.write_text(json.dumps(pinned, indent=1) + "\n")


if __name__ == "__main__":
    pin()
