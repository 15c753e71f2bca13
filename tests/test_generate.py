"""Sentences drawn from a model: the right distribution, and nothing but the seed decides."""

import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline import generate as command
from pipeline.inference.generation import generate, sample
from pipeline.lm.model import LanguageModel, build_model
from pipeline.project.console import UserError
from tests.small import CELLS, save_small_model, small_settings

EOS = 0
VOCAB = 12
MODELS = {cell: build_model(small_settings(cell=cell, init_range=0.5), VOCAB).double() for cell in CELLS}
VOCABULARY = ("<eos>", "the", "<unk>", "cat", "sat")

logits = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=20).map(torch.tensor)
temperatures = st.floats(0.1, 10)


@given(logits=logits, temperature=temperatures)
def test_samples_have_the_probabilities_of_the_softmax(logits: torch.Tensor, temperature: float) -> None:
    evenly = (torch.arange(500, dtype=torch.float64) + 0.5) / 500
    drawn = sample(logits.expand(500, -1), evenly, temperature)
    expected = (logits.double() / temperature).softmax(dim=0) * 500
    assert ((drawn.bincount(minlength=len(logits)) - expected).abs() <= 1 + 1e-6).all()


@given(logits=logits, uniform=st.floats(0, 1, exclude_max=True), top_k=st.integers(1, 25))
def test_top_k_draws_from_the_k_most_probable(logits: torch.Tensor, uniform: float, top_k: int) -> None:
    drawn = sample(logits[None], torch.tensor([uniform], dtype=torch.float64), top_k=top_k)
    assert (logits > logits[drawn]).sum() < top_k


@given(logits=logits, uniform=st.floats(0, 1, exclude_max=True))
def test_a_vanishing_temperature_takes_the_most_probable(logits: torch.Tensor, uniform: float) -> None:
    logits[len(logits) // 2] = 11.0  # one alone
    drawn = sample(logits[None], torch.tensor([uniform], dtype=torch.float64), temperature=1e-320)
    assert drawn.item() == len(logits) // 2


@torch.no_grad()
def one_by_one(model: LanguageModel, prompt: list[int], uniform: torch.Tensor) -> list[int]:
    """One sentence, read again from its start for every word."""
    sentence: list[int] = []
    for number in uniform:
        logits, _ = model.eval()(torch.tensor([EOS, *prompt, *sentence])[:, None])
        sentence.append(int(sample(logits[-1], number[None])))
        if sentence[-1] == EOS:
            break
    return sentence


@pytest.mark.parametrize("cell", CELLS)
@given(
    prompt=st.lists(st.integers(1, VOCAB - 1), max_size=4),
    batch=st.integers(1, 4),
    max_length=st.integers(1, 12),
    seed=st.integers(0, 100),
)
def test_a_batch_is_its_sentences_one_by_one(
    cell: str, prompt: list[int], batch: int, max_length: int, seed: int
) -> None:
    uniform = torch.rand(batch, max_length, generator=torch.Generator().manual_seed(seed))
    found = generate(MODELS[cell], prompt, EOS, uniform)
    assert found == [one_by_one(MODELS[cell], prompt, row) for row in uniform]
    assert all(EOS not in sentence[:-1] for sentence in found)
    assert all(len(sentence) == max_length for sentence in found if sentence[-1] != EOS)


@pytest.fixture
def run_generate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., tuple[str, str]]:
    """Run the command with the model `lstm`; gives what it prints on stdout and stderr."""
    save_small_model("lstm", VOCABULARY)

    def run_generate(*arguments: str, model: str = "lstm") -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["generate", model, *arguments])
        command.main()
        return capsys.readouterr()

    return run_generate


def test_the_same_seed_gives_the_same_text_and_another_seed_another(
    run_generate: Callable[..., tuple[str, str]],
) -> None:
    text, _ = run_generate("--lines", "70")
    assert len(text.splitlines()) == 70
    assert "<eos>" not in text
    assert run_generate("--lines", "70")[0] == text
    assert run_generate("--lines", "70", "--seed", "2")[0] != text
    assert run_generate("--lines", "66")[0].splitlines() == text.splitlines()[:66]


def test_lines_begin_with_the_prompt_and_unknown_words_of_it_are_said(
    run_generate: Callable[..., tuple[str, str]],
) -> None:
    text, warning = run_generate("--prompt", "the  dog", "--lines", "5")
    assert all(line.startswith("the dog") for line in text.splitlines())
    assert "not in lstm's vocabulary, and read as <unk>: dog" in warning
    assert run_generate("--prompt", "the cat")[1] == ""


def test_a_line_that_does_not_end_is_cut_and_said(run_generate: Callable[..., tuple[str, str]]) -> None:
    text, warning = run_generate("--max-words", "1", "--lines", "50")
    cut = [line for line in text.splitlines() if line]
    assert all(len(line.split()) == 1 for line in cut)
    assert f"{len(cut)} of 50 lines did not end within 1 words" in warning


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--temperature", "0", "0 is not above 0"),
        ("--temperature", "nan", "nan is not above 0"),
        ("--temperature", "inf", "inf is not above 0"),
        ("--top-k", "0", "0 is not above 0"),
        ("--lines", "-1", "-1 is not above 0"),
        ("--seed", str(2**64), f"{2**64} is above {2**64 - 1}"),
        ("--max-words", str(2**64), f"{2**64} is above 100000"),
        ("--lines", str(10**10), f"{10**10} is above {10**9}"),
        ("--top-k", str(10**10), f"{10**10} is above {10**9}"),
        ("--lines", "9" * 5000, "a number of 5,000 digits is too long"),
        ("--seed", "one", "invalid int value: 'one'"),
    ],
)
def test_options_out_of_range_are_refused(
    option: str,
    value: str,
    message: str,
    run_generate: Callable[..., tuple[str, str]],
    capsys: pytest.CaptureFixture,
) -> None:
    with pytest.raises(SystemExit):
        run_generate(option, value)
    assert f"argument {option}: {message}" in capsys.readouterr().err


def test_a_missing_model_and_a_line_end_in_the_prompt_are_refused(
    run_generate: Callable[..., tuple[str, str]],
) -> None:
    with pytest.raises(UserError, match="no trained model 'gru' in results/models, there are lstm"):
        run_generate(model="gru")
    with pytest.raises(UserError, match="--prompt: has the word <eos>"):
        run_generate("--prompt", "the <eos>")
    with pytest.raises(UserError, match="--prompt: not text in UTF-8"):
        run_generate("--prompt", "the \udcff")
