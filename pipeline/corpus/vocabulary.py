"""Words to ids, for preprocessing and for scoring alike."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from pipeline.corpus.words import EOS, UNK, refuse_eos
from pipeline.project.console import UserError


@dataclass(frozen=True)
class Sentence:
    """words and their ids; unknown: the positions of the words that became `<unk>`."""

    words: Sequence[str]
    ids: Sequence[int]
    unknown: Sequence[int]


class Encoder:
    """Turns words into ids, a word outside the vocabulary into the id of `<unk>`.

    lower_case: `encode` reads every word in lower case
    """

    def __init__(self, vocabulary: Sequence[str], *, lower_case: bool = False) -> None:
        self._lower_case = lower_case
        self._id_of = {word: number for number, word in enumerate(vocabulary)}
        self._unknown = self._id_of.get(UNK)
        self.eos = self._id_of[EOS]

    def ids(self, words: Iterable[str], where: str, remedy: str) -> list[int]:
        """Raises UserError, with place and remedy, at an unknown word if there is no `<unk>`."""
        id_of, unknown = self._id_of.get, self._unknown
        ids = [id_of(word, unknown) for word in words]
        if unknown is None and None in ids:
            word = list(words)[ids.index(None)]
            raise UserError(f"{where}: the vocabulary lacks the word {word!r}, and {UNK} to stand for it: {remedy}")
        return ids  # type: ignore[return-value]  # no None is left

    def encode(self, words: Sequence[str], where: str) -> Sentence:
        """A sentence for a trained model. Raises UserError as `ids` does, and at the word `<eos>`."""
        read = [word.lower() for word in words] if self._lower_case else words
        refuse_eos(read, where)
        ids = self.ids(read, where, "use a model that was trained on such a text")
        return Sentence(words, ids, [place for place, word in enumerate(read) if word not in self._id_of])


def count_words(lines: Iterable[Sequence[str]]) -> Counter[str]:
    """How often each word of a text occurs, and `<eos>`, once per line."""
    counts = Counter({EOS: 0})
    counts.update(chain.from_iterable([*words, EOS] for words in lines))
    return counts


def build_vocabulary(counts: Mapping[str, int], max_size: int | None = None, min_count: int = 1) -> list[str]:
    """The words of a text and `<eos>`, the most frequent first, equally frequent ones by code point.

    counts: from `count_words`
    max_size: of the vocabulary, `<eos>` and `<unk>` included: the least frequent words fall out
    min_count: words that occur less often fall out

    Either bound puts `<unk>` into the vocabulary, which is counted as often as what falls out: the vocabulary is that
    of the text with `<unk>` written in place of those words.
    """
    if max_size is None and min_count == 1:
        return _by_frequency(counts)
    words = [word for word in _by_frequency(counts) if counts[word] >= min_count and word not in (EOS, UNK)]
    kept = {word: counts[word] for word in [EOS, *words[: max_size and max_size - 2]]}
    kept[UNK] = sum(counts.values()) - sum(kept.values())
    return _by_frequency(kept)


def _by_frequency(counts: Mapping[str, int]) -> list[str]:
    return sorted(counts, key=lambda word: (-counts[word], word))
