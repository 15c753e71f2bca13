"""A small corpus of invented words with exactly known entropy, to try the pipeline without Penn Treebank.

A word depends only on the one before it (a Markov chain), so on a long text no language model can have a perplexity
below `true_perplexity()`. The bytes are the same everywhere: all randomness comes from `random.Random.random`, which
gives the same numbers in every version of Python, followed by basic arithmetic only, which every machine rounds alike.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from operator import add
from pathlib import Path
from typing import TypeVar

import numpy as np

from pipeline.corpus.words import EOS, UNK
from pipeline.project.files import SPLITS, atomic_write

NUM_CLASSES = 10
CLASS_SIZE = 8  # words in a class
MEAN_LENGTH = 10  # words in a sentence, on average
SOURCE_SEED = 1
SPLIT_TOKENS = {"train": 20_000, "valid": 4_000, "test": 4_000}

T = TypeVar("T")


@dataclass(frozen=True)
class MarkovSource:
    """words[i] is followed by words[j] with probability transitions[i][j]. words[0] is `<eos>`."""

    words: tuple[str, ...]
    transitions: tuple[tuple[float, ...], ...]

    def draw(self, seed: int) -> Iterator[str]:
        """An endless stream of words, starting with a sentence."""
        generator = random.Random(seed)
        word = 0
        while True:
            word = self._successor(word, generator.random())
            yield self.words[word]

    def _successor(self, word: int, uniform: float) -> int:
        """The word at which the cumulative probability exceeds a number drawn from [0, 1)."""
        for successor, probability in enumerate(self.transitions[word]):
            uniform -= probability
            if uniform < 0:
                return successor
        return self._successor(word, 0.0)  # rounding left the row's sum just below the number drawn


@cache
def source() -> MarkovSource:
    """The Markov chain behind the sample, a very simple grammar.

    Words come in classes. A sentence continues with the next class, or half as often with some other one; within a
    class, a word's probability falls as 1 / rank (Zipf's law).
    """
    generator = random.Random(SOURCE_SEED)
    words = (EOS, UNK, *_invent_words(NUM_CLASSES * CLASS_SIZE - 1, generator))
    transitions = [_row(0, 0.0, generator)]
    for following in range(1, NUM_CLASSES + 1):
        transitions += [_row(following % NUM_CLASSES, 1 / MEAN_LENGTH, generator)] * CLASS_SIZE
    return MarkovSource(words, tuple(transitions))


def text(num_tokens: int, seed: int) -> str:
    """Complete sentences, one per line: at least `num_tokens` tokens, line ends included."""
    words = source().draw(seed)
    pieces: list[str] = []
    while len(pieces) < num_tokens or pieces[-1] != "\n":
        word = next(words)
        pieces.append("\n" if word == EOS else f"{word} ")
    return "".join(pieces)


def true_perplexity() -> float:
    """The source's perplexity per token, `<eos>` included: e to the power of its entropy rate in nats."""
    transitions = np.array(source().transitions)  # [from, to]
    size = len(transitions)
    # How often each word occurs: the p with p T = p whose sum is 1. One equation more than unknowns, but consistent.
    equations = np.vstack([transitions.T - np.eye(size), np.ones(size)])
    frequencies = np.linalg.lstsq(equations, np.append(np.zeros(size), 1.0), rcond=None)[0]
    logarithms = np.log(transitions, out=np.zeros_like(transitions), where=transitions > 0)
    return float(np.exp(-frequencies @ (transitions * logarithms).sum(axis=1)))


def write(folder: Path) -> None:
    """Write sample.train.txt, sample.valid.txt and sample.test.txt."""
    for seed, split in enumerate(SPLITS):
        with atomic_write(folder / f"sample.{split}.txt") as file:
            file.write(text(SPLIT_TOKENS[split], seed))


def _row(following: int, end: float, generator: random.Random) -> tuple[float, ...]:
    """The probabilities of all words after one: `end` for `<eos>`, the rest for the following class and one other."""
    other = _pick([number for number in range(NUM_CLASSES) if number != following], generator)
    row = [end] + [0.0] * (NUM_CLASSES * CLASS_SIZE)
    for number, class_probability in zip((following, other), _zipf(2), strict=True):
        for rank, word_probability in enumerate(_zipf(CLASS_SIZE), start=1):
            row[number * CLASS_SIZE + rank] = (1 - end) * class_probability * word_probability
    return tuple(row)


def _zipf(size: int) -> list[float]:
    """Probabilities that fall as 1 / rank."""
    weights = [1 / rank for rank in range(1, size + 1)]
    total = reduce(add, weights)  # `sum` rounds floats differently since Python 3.12
    return [weight / total for weight in weights]


def _invent_words(number: int, generator: random.Random) -> list[str]:
    """Distinct words of two syllables, such as `mopa`."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    words: dict[str, None] = {}
    while len(words) < number:
        words[_pick(syllables, generator) + _pick(syllables, generator)] = None
    return list(words)


def _pick(items: Sequence[T], generator: random.Random) -> T:
    return items[int(generator.random() * len(items))]
