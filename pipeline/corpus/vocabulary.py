"""Words to ids, for preprocessing and for scoring alike."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.corpus.words import EOS, UNK, refuse_eos
from pipeline.project.console import UserError


@dataclass(frozen=True)
class Sentence:
    """words and their ids; unknown: the places of the words that became `<unk>`."""

    words: Sequence[str]
    ids: Sequence[int]
    unknown: Sequence[int]


class Encoder:
    """Turns words into ids, a word outside the vocabulary into that of `<unk>`."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._id_of = {word: number for number, word in enumerate(vocabulary)}
        self._unknown = self._id_of.get(UNK)
        self.eos = self._id_of[EOS]

    def ids(self, words: Iterable[str], where: str, remedy: str) -> list[int]:
        """Raises UserError, saying where and with the remedy, at an unknown word when there is no `<unk>`."""
        ids = [self._id_of.get(word, self._unknown) for word in words]
        if self._unknown is None and None in ids:
            word = list(words)[ids.index(None)]
            raise UserError(f"{where}: the vocabulary lacks the word {word!r}, and {UNK} to stand for it: {remedy}")
        return ids  # type: ignore[return-value]  # no None is left

    def encode(self, words: Sequence[str], where: str) -> Sentence:
        """A sentence for a trained model. Raises UserError as `ids` does, and at the word `<eos>`."""
        refuse_eos(words, where)
        ids = self.ids(words, where, "use a model that was trained on such a text")
        return Sentence(words, ids, [place for place, word in enumerate(words) if word not in self._id_of])


def build_vocabulary(lines: Iterable[Sequence[str]]) -> list[str]:
    """All words of a text and `<eos>`, the most frequent first, equally frequent ones by code point."""
    counts = Counter({EOS: 0})
    for words in lines:
        counts.update(words)
        counts[EOS] += 1
    return sorted(counts, key=lambda word: (-counts[word], word))
