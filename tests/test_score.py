"""Scores of sentences: of each on its own, whatever shares its batch."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline import score
from pipeline.artifacts.weights import load_weights, save_weights
from pipeline.corpus import words
from pipeline.corpus.ids import write_corpus
from pipeline.inference.scoring import MAX_TOKENS, token_losses
from pipeline.lm.batching import Batches
from pipeline.lm.evaluation import evaluate
from pipeline.lm.model import LanguageModel, build_model
from pipeline.project.console import UserError
from pipeline.project.files import PROCESSED, SPLITS
from tests.small import CELLS, ROOT, save_small_model, small_settings

EOS = 0
VOCAB = 12
MODELS = {cell: build_model(small_settings(cell=cell, init_range=0.5), VOCAB).double() for cell in CELLS}
VOCABULARY = ("<eos>", "the", "<unk>", "cat", "sat")

sentences = st.lists(st.lists(st.integers(1, VOCAB - 1), max_size=30), min_size=1, max_size=12)


@torch.no_grad()
def losses_by_definition(model: LanguageModel, sentence: list[int]) -> torch.Tensor:
    """-log p of each token given those before it, word by word from the zero state."""
    state, losses = None, []
    for token, following in zip([EOS, *sentence], [*sentence, EOS], strict=True):
        logits, state = model.eval()(torch.tensor([[token]]), state)
        losses.append(-logits.flatten().log_softmax(dim=0)[following])
    return torch.stack(losses)


@pytest.mark.parametrize("cell", CELLS)
@given(sentences=sentences, max_tokens=st.integers(1, 200))
def test_a_sentence_has_its_own_losses_in_any_batch(cell: str, sentences: list[list[int]], max_tokens: int) -> None:
    losses = token_losses(MODELS[cell], sentences, EOS, max_tokens)
    for sentence, found in zip(sentences, losses, strict=True):
        torch.testing.assert_close(found, losses_by_definition(MODELS[cell], sentence), rtol=1e-10, atol=1e-10)


@given(sentences=sentences, max_tokens=st.integers(1, 50))
def test_no_more_logits_than_asked_for_are_in_memory(sentences: list[list[int]], max_tokens: int) -> None:
    shapes = []
    hook = MODELS["gru"].register_forward_hook(lambda _module, _inputs, outputs: shapes.append(outputs[0].shape))
    token_losses(MODELS["gru"], sentences, EOS, max_tokens)
    hook.remove()
    assert all(time * batch <= max_tokens for time, batch, _ in shapes)


def test_one_sentence_scores_as_a_text_of_it_evaluates() -> None:
    sentence = [3, 1, 4, 1, 5, 9, 2, 6]
    text = Batches(torch.tensor([EOS, *sentence, EOS]), batch_size=1, bptt=4)
    (losses,) = token_losses(MODELS["lstm"], [sentence], EOS)
    assert losses.mean().item() == pytest.approx(evaluate(MODELS["lstm"], text), rel=1e-12)


@pytest.fixture
def run_score(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., tuple[str, str]]:
    """Run the command on what stdin brings; gives what it prints on stdout and stderr."""

    def run_score(*arguments: str, stdin: bytes = b"") -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["score", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        score.main()
        return capsys.readouterr()

    return run_score


def test_json_and_table_agree_and_add_up(run_score: Callable[..., tuple[str, str]]) -> None:
    save_small_model("lstm", VOCABULARY)
    text = b"the cat sat\n\nthe dog sat\n<unk>"
    found = json.loads(run_score("lstm", "--json", "--words", stdin=text)[0])
    assert [line["tokens"] for line in found["lines"]] == [4, 1, 4, 2]
    assert [line["unknown_words"] for line in found["lines"]] == [0, 0, 1, 0]
    assert [word["word"] for word in found["lines"][2]["words"]] == ["the", "dog", "sat", "<eos>"]
    assert [word["unknown"] for word in found["lines"][2]["words"]] == [False, True, False, False]
    for line in found["lines"]:
        bits = [word["surprisal_bits"] for word in line["words"]]
        assert line["perplexity"] == pytest.approx(2 ** (sum(bits) / len(bits)))
    bits = [word["surprisal_bits"] for line in found["lines"] for word in line["words"]]
    assert (found["tokens"], found["unknown_words"]) == (11, 1)
    assert found["perplexity"] == pytest.approx(2 ** (sum(bits) / 11))

    Path("text.txt").write_bytes(text)
    table, _ = run_score("lstm", "text.txt", "--words")
    assert [row.split()[3] for row in table.splitlines() if len(row.split()) == 4] == [
        f"{line['perplexity']:.2f}" for line in found["lines"]
    ]
    assert f"perplexity {found['perplexity']:.2f} of 11 tokens in 4 lines; 1 of 7 words unknown (14.3%)" in table
    assert "dog (<unk>)" in table


def test_a_line_has_the_same_score_in_any_place_of_a_long_text(run_score: Callable[..., tuple[str, str]]) -> None:
    save_small_model("gru", VOCABULARY, cell="gru")
    line, other = b"the cat sat\n", b"cat the the the sat\n"
    alone = json.loads(run_score("gru", "--json", stdin=line)[0])
    among = json.loads(run_score("gru", "--json", stdin=other * 3_000 + line)[0])  # more than a chunk
    assert among["lines"][-1]["perplexity"] == pytest.approx(alone["perplexity"], rel=1e-5)
    assert among["lines"][-1]["line"] == 3_001


def test_many_unknown_words_are_warned_of(run_score: Callable[..., tuple[str, str]]) -> None:
    save_small_model("lstm", VOCABULARY)
    _, warning = run_score("lstm", stdin=b"der Hund sat\n")
    assert "67% of the words are not in lstm's vocabulary" in warning
    assert run_score("lstm", stdin=b"the cat sat\n")[1] == ""


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (b"", "stdin is empty: give a text"),
        (b"the\rcat\r", r"stdin, line 1: has CR alone as line ends: convert them with `tr"),
        ("the cat\n".encode("utf-16"), "stdin, line 1: not text in UTF-8 but in UTF-16"),
        (b"\n \n", "stdin is empty: give a text"),
        (b"the cat\n\x7fELF\0\0\n", "stdin, line 2: not text but binary data"),
        (b"the\n\xff\xfe", "stdin, line 2: not text in UTF-8"),
        (b"the\ncat <eos>", "line 2: has the word <eos>"),
    ],
)
def test_input_that_is_no_text_is_refused(
    run_score: Callable[..., tuple[str, str]], stdin: bytes, message: str
) -> None:
    save_small_model("lstm", VOCABULARY)
    with pytest.raises(UserError, match=message):
        run_score("lstm", stdin=stdin)


def test_a_folder_in_the_place_of_weights_is_named(run_score: Callable[..., tuple[str, str]]) -> None:
    Path("results/models/lstm/model.safetensors").mkdir(parents=True)
    with pytest.raises(UserError, match=r"results/models/lstm/model\.safetensors cannot be read .*: move it away"):
        run_score("lstm", stdin=b"the")


def test_a_byte_order_mark_is_no_word(run_score: Callable[..., tuple[str, str]]) -> None:
    save_small_model("lstm", VOCABULARY)
    found = json.loads(run_score("lstm", "--json", stdin=b"\xef\xbb\xbfthe cat\n\xef\xbb\xbfthe cat\n")[0])
    assert found["unknown_words"] == 0
    assert found["lines"][0]["perplexity"] == found["lines"][1]["perplexity"]


def test_the_bar_moves_within_a_long_line_and_comes_to_its_end(
    run_score: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_small_model("lstm", VOCABULARY)
    text = b"the cat sat\n" + b"the cat " * 20_000 + b"\n" + b"cat\n" * 3
    Path("text.txt").write_bytes(text)
    places = [0]

    class Bar:
        n = 0

        def update(self, number: int) -> None:
            self.n += number
            places.append(self.n)

    monkeypatch.setattr(score, "progress", lambda *_: nullcontext(Bar()))
    run_score("lstm", "text.txt")
    assert places[-1] == len(text)
    assert places == sorted(places)
    assert len(places) >= 40_000 // MAX_TOKENS


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    run_score: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_small_model("lstm", VOCABULARY)
    monkeypatch.setattr(words, "LONGEST_LINE", 1_000)
    run_score("lstm", stdin=b"cat " * 249)
    with pytest.raises(UserError, match="stdin, line 2: longer than 1,000 bytes: write one sentence per line"):
        run_score("lstm", stdin=b"the\n" + b"cat " * 10_000)


def test_json_is_json_where_the_output_lacks_a_letter() -> None:
    save_small_model("lstm", VOCABULARY)
    command = [sys.executable, "-m", "pipeline.score", "lstm", "--json", "--words"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, input="café".encode(), env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout)["lines"][0]["words"][0]["word"] == "café"


@pytest.mark.parametrize("name", ["the cat sat " * 100, "text.txt/x", "loop", "a\nb", "\udcff"])
def test_what_is_no_files_name_is_one_line(name: str, run_score: Callable[..., tuple[str, str]]) -> None:
    save_small_model("lstm", VOCABULARY)
    Path("text.txt").touch()
    Path("loop").symlink_to("loop")
    with pytest.raises(UserError, match="name a text, one sentence per line, or - for stdin") as error:
        run_score("lstm", name)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300


def test_a_missing_model_and_a_missing_file_are_named(run_score: Callable[..., tuple[str, str]]) -> None:
    with pytest.raises(UserError, match=r"no trained model 'lstn' in results/models, there are none"):
        run_score("lstn", stdin=b"the")
    save_small_model("gru", VOCABULARY)
    save_small_model("lstm", VOCABULARY)
    with pytest.raises(UserError, match=r"no trained model 'lstn' in results/models, there are gru, lstm"):
        run_score("lstn", stdin=b"the")
    for path in ("nowhere.txt", "results"):
        with pytest.raises(UserError, match=f"{path} (not found|is a folder, not a file)"):
            run_score("lstm", path)


def test_a_model_of_another_corpus_is_refused(run_score: Callable[..., tuple[str, str]]) -> None:
    ids = dict.fromkeys(SPLITS, torch.tensor([0, 1, 0]).numpy().astype("uint16"))
    write_corpus(ids, list(VOCABULARY))
    save_small_model("lstm", VOCABULARY)
    save_small_model("old", ("<eos>", "other"))
    run_score("lstm", stdin=b"the cat\n")
    with pytest.raises(UserError, match=f"old/model.safetensors was trained on another corpus than {PROCESSED}"):
        run_score("old", stdin=b"the cat\n")


def test_a_model_of_a_text_in_lower_case_reads_capitals_as_small_letters(
    run_score: Callable[..., tuple[str, str]],
) -> None:
    path, settings = save_small_model("lstm", VOCABULARY)
    as_written = json.loads(run_score("lstm", "--json", stdin=b"The CAT sat\n")[0])
    weights = load_weights(path).model.state_dict()
    save_weights(path, weights, settings, VOCABULARY, "f1a9", lower_case=True)
    capitals, small = (
        json.loads(run_score("lstm", "--json", stdin=text)[0]) for text in (b"The CAT sat\n", b"the cat sat\n")
    )
    assert (as_written["unknown_words"], capitals["unknown_words"]) == (2, 0)
    assert capitals == small
    with pytest.raises(UserError, match="line 1: has the word <eos>"):
        run_score("lstm", stdin=b"the <EOS>\n")


def test_a_word_that_nothing_can_stand_for_is_named(run_score: Callable[..., tuple[str, str]]) -> None:
    save_small_model("lstm", ("<eos>", "the"))
    with pytest.raises(UserError, match="line 1: the vocabulary has neither the word 'cat' nor <unk>"):
        run_score("lstm", stdin=b"the cat\n")


def test_the_command_ends_well_in_a_shell() -> None:
    save_small_model("lstm", VOCABULARY)
    command = [sys.executable, "-m", "pipeline.score", "lstm"]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    refused = subprocess.run(command, input=b"\0", env=environment, capture_output=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.decode().startswith("error: stdin, line 1: not text but binary data")
    assert b"Traceback" not in refused.stderr

    Path("text.txt").write_text("the cat sat\n" * 20_000)
    with subprocess.Popen(
        [*command, "text.txt"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as reading:
        assert reading.stdout is not None
        assert reading.stderr is not None
        assert reading.stdout.readline().split() == [b"line", b"tokens", b"unknown", b"perplexity"]
        reading.stdout.close()  # as `head -1` does
        assert reading.stderr.read() == b""
