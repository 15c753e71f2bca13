"""The sample corpus: the same bytes everywhere, and the entropy that it claims to have."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.corpus import sample
from pipeline.project.files import SPLITS, sha256
from tests.small import recipe_params


def draw(num_tokens: int, seed: int) -> np.ndarray:
    """Word numbers [num_tokens] of a text drawn from the source."""
    number = {word: index for index, word in enumerate(sample.source().words)}
    words = sample.text(num_tokens, seed).replace("\n", "<eos> ").split()
    return np.array([number[word] for word in words[:num_tokens]])


def test_the_demo_recipe_has_the_checksums_of_the_sample(tmp_path: Path) -> None:
    sample.write(tmp_path)
    files = recipe_params("demo").download.files
    for split in SPLITS:
        expected = getattr(files, split)
        assert sha256(tmp_path / expected.name) == expected.sha256


def test_a_text_consists_of_complete_sentences_that_depend_on_the_seed() -> None:
    texts = [sample.text(1000, seed) for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]
    lines = texts[0].split("\n")
    assert lines.pop() == ""
    assert all(line.split() for line in lines)
    assert len(texts[0].split()) + len(lines) >= 1000


def test_every_row_of_transitions_is_a_distribution_and_no_sentence_is_empty() -> None:
    transitions = np.array(sample.source().transitions)
    assert transitions.min() >= 0
    np.testing.assert_allclose(transitions.sum(axis=1), 1, rtol=1e-12)
    assert transitions[0, 0] == 0


def test_the_true_perplexity_agrees_with_power_iteration() -> None:
    transitions = np.array(sample.source().transitions)
    frequencies = np.full(len(transitions), 1 / len(transitions))
    for _ in range(2000):
        frequencies = frequencies @ transitions
    surprisal = -np.log(np.where(transitions > 0, transitions, 1))
    entropy = np.sum(frequencies[:, None] * transitions * surprisal)
    assert sample.true_perplexity() == pytest.approx(np.exp(entropy), rel=1e-9)
    assert 8 < sample.true_perplexity() < 15


def test_the_true_perplexity_agrees_with_a_long_text() -> None:
    tokens = draw(100_000, seed=99)
    transitions = np.array(sample.source().transitions)
    surprisal = -np.log(transitions[tokens[:-1], tokens[1:]])
    block_means = surprisal[:99_900].reshape(-1, 100).mean(axis=1)  # neighbours are dependent, blocks hardly
    standard_error = block_means.std(ddof=1) / np.sqrt(len(block_means))
    assert standard_error < 0.01
    assert abs(block_means.mean() - np.log(sample.true_perplexity())) < 4 * standard_error


def test_every_word_occurs_in_the_train_split(tmp_path: Path) -> None:
    sample.write(tmp_path)
    words = set((tmp_path / "sample.train.txt").read_text().split())
    assert words | {"<eos>"} == set(sample.source().words)
