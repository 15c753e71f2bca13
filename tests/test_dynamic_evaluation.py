"""Dynamic evaluation: honest, harmless at rate zero, and better where a text repeats itself."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.corpus.ids import write_corpus
from pipeline.evaluate import evaluate_model
from pipeline.inference.dynamic_evaluation import evaluate_dynamically, gradient_scale
from pipeline.lm.batching import Batches
from pipeline.lm.evaluation import evaluate
from pipeline.lm.model import LanguageModel, build_model
from pipeline.lm.settings import DynamicEvaluation
from pipeline.project.files import SPLITS
from pipeline.train import train
from tests.small import CELLS, ROOT, committed_document, small_settings

VOCAB = 30
GENERATOR = torch.Generator().manual_seed(0)
TRAIN = torch.randint(VOCAB, (1001,), generator=GENERATOR)
TEXT = torch.randint(5, (301,), generator=GENERATOR)  # only five of the words


def dynamic(**overrides: float) -> DynamicEvaluation:
    return DynamicEvaluation.model_validate(
        {"learning_rate": 0.01, "decay": 0.0, "epsilon": 1e-3, "bptt": 5} | overrides
    )


def loss(model: LanguageModel, text: torch.Tensor = TEXT, **overrides: float) -> float:
    return evaluate_dynamically(model, text, gradient_scale(model, TRAIN, 5), dynamic(**overrides))


@pytest.mark.parametrize("cell", CELLS)
def test_a_model_that_hardly_learns_scores_as_it_does_statically(cell: str) -> None:
    model = build_model(small_settings(cell=cell), VOCAB)
    assert loss(model, learning_rate=1e-12) == pytest.approx(evaluate(model, Batches(TEXT, 1, 5)), rel=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_a_text_of_few_words_is_learned_while_it_is_read(tied: bool) -> None:
    model = build_model(small_settings(tied_weights=tied), VOCAB)
    assert loss(model) < evaluate(model, Batches(TEXT, 1, 5)) - 0.5


def test_the_trained_weights_stay_as_they_are() -> None:
    model = build_model(small_settings(), VOCAB)
    before = [parameter.clone() for parameter in model.parameters()]
    assert loss(model) == loss(model)
    assert all(map(torch.equal, before, model.parameters()))


def test_no_token_is_learned_before_it_is_predicted() -> None:
    """The first window, and any text of just one window, scores as it does statically, at whatever rate."""
    model = build_model(small_settings(), VOCAB)
    assert loss(model, TEXT[:6], learning_rate=5.0) == pytest.approx(evaluate(model, Batches(TEXT[:6], 1, 5)))


def test_pulled_back_with_full_force_it_does_not_move_far() -> None:
    model = build_model(small_settings(), VOCAB)
    free, held = loss(model), loss(model, decay=1e6)
    static = evaluate(model, Batches(TEXT, 1, 5))
    assert free < held < static


def test_the_scale_is_the_root_mean_square_of_the_gradients() -> None:
    model = build_model(small_settings(), VOCAB)
    scale = gradient_scale(model, TRAIN[:501], 5)  # one window
    inputs, targets, _ = next(iter(Batches(TRAIN[:501], 100, 5)))
    total, _ = model(inputs, None, targets)
    for rms, gradient in zip(scale.rms, torch.autograd.grad(total / 500, list(model.parameters())), strict=True):
        torch.testing.assert_close(rms, gradient.abs())


@pytest.mark.usefixtures("empty_store")
def test_settings_that_are_tried_give_what_an_evaluation_with_them_gives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """docs/experiments/dynamic.py, here on the whole validation text."""
    params = committed_document()
    params["train"], params["models"] = small_settings(epochs=1).model_dump(), {"lstm": {"cell": "lstm"}}
    params["evaluate"]["dynamic"] = {"lstm": dynamic(decay=0.02).model_dump()}
    Path("params.yaml").write_text(json.dumps(params))
    write_corpus({split: np.array([1, 2, 0] * 200, np.uint16) for split in SPLITS}, ["<eos>", "a", "b"])
    train("lstm")
    expected = evaluate_model("lstm").figures()["valid_perplexity_dynamic"]

    script = runpy.run_path(str(ROOT / "docs/experiments/dynamic.py"))
    arguments = ["lstm", "1e-9", "0.01", "--decay", "0.02", "--epsilon", "0.001", "--bptt", "5", "--tokens", "599"]
    monkeypatch.setattr("sys.argv", ["dynamic.py", *arguments])
    capsys.readouterr()
    script["main"]()
    static, unmoved, found = [line.split(": ")[-1] for line in capsys.readouterr().out.splitlines()]
    assert (static, found) == (unmoved, f"{expected:.2f}")
    assert float(found) < float(static) - 0.1
