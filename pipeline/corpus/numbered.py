"""A text, read once: its words as provisional numbers, which become ids once the vocabulary is known."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import numpy as np

from pipeline.corpus.ids import id_dtype
from pipeline.corpus.vocabulary import Encoder, unknown_word
from pipeline.corpus.words import EOS

PART = 2**18  # numbers in memory at a time


class _Numbers(dict[str, int]):
    """The number of each word: words are numbered when they are first looked up."""

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        return number


class NumberedText:
    """A text of which only the distinct words are in memory.

    counts: how often each word occurs, `<eos>` included

    name: of the text, for messages
    parts: its tokens, from `read_tokens`
    file: an empty file for the numbers, 4 bytes per token
    """

    def __init__(self, name: str, parts: Iterable[Sequence[str]], file: IO[bytes]) -> None:
        self._name, self._file = name, file
        self._number_of = _Numbers({EOS: 0})
        frequencies = np.zeros(1, np.int64)
        for tokens in parts:
            numbers = np.fromiter(map(self._number_of.__getitem__, tokens), np.uint32, len(tokens))
            file.write(numbers.data)
            so_far, frequencies = frequencies, np.bincount(numbers, minlength=len(self._number_of))
            frequencies[: len(so_far)] += so_far
        self.counts = Counter(dict(zip(self._number_of, frequencies.tolist(), strict=True)))

    def ids(self, vocabulary: Sequence[str], remedy: str) -> Iterator[np.ndarray]:
        """The ids of the tokens in successive parts [length], of the smallest type that can hold them.

        Raises UserError, with line and remedy, at a word outside the vocabulary if that has no `<unk>`.
        """
        try:
            id_of = np.fromiter(Encoder(vocabulary).ids(self._number_of), id_dtype(len(vocabulary)))
        except KeyError as error:
            word = error.args[0]
            raise unknown_word(word, f"{self._name}, line {self._line_of(word)}", remedy) from None
        for numbers in self._parts():
            yield id_of[numbers]

    def _line_of(self, word: str) -> int:
        """The line in which a word first occurs, counted from 1."""
        number, line = self._number_of[word], 1
        for numbers in self._parts():
            places = np.flatnonzero(numbers == number)
            before = numbers[: places[0]] if len(places) else numbers
            line += int(np.count_nonzero(before == self._number_of[EOS]))
            if len(places):
                break
        return line

    def _parts(self) -> Iterator[np.ndarray]:
        self._file.seek(0)
        while part := self._file.read(PART * np.dtype(np.uint32).itemsize):
            yield np.frombuffer(part, np.uint32)
