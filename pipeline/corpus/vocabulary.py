"""Words to ids, for both preprocessing and scoring."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.corpus.words import EOS, UNK, refuse_eos
from pipeline.project.console import UserError


@dataclass(frozen=True)
class Sentence:
    """words and their ids; unknown: the positions of the words that became `<unk>`."""

    words: Sequence[str]
    ids: Sequence[int]
    unknown: Sequence[int]


class Encoder:
    """Turns words into ids, and words outside the vocabulary into the id of `<unk>`.

    lower_case: `encode` converts every word to lower case
    """

    def __init__(self, vocabulary: Sequence[str], *, lower_case: bool = False) -> None:
        self._lower_case = lower_case
        self._id_of = _Ids((word, number) for number, word in enumerate(vocabulary))
        self.eos = self._id_of[EOS]

    def ids(self, words: Iterable[str]) -> Iterator[int]:
        """Raises KeyError at an unknown word if there is no `<unk>`."""
        return map(self._id_of.__getitem__, words)

    def encode(self, words: Sequence[str], where: str) -> Sentence:
        """A sentence for a trained model. Raises UserError at an unknown word as `ids` does, and at `<eos>`."""
        read = [word.lower() for word in words] if self._lower_case else words
        refuse_eos(read, where)
        try:
            ids = list(self.ids(read))
        except KeyError as error:
            raise unknown_word(error.args[0], where, "use a model that was trained on such a text") from None
        return Sentence(words, ids, [place for place, word in enumerate(read) if word not in self._id_of])


class _Ids(dict[str, int]):
    def __missing__(self, word: str) -> int:
        if UNK not in self:
            raise KeyError(word)
        return self[UNK]


def unknown_word(word: str, where: str, remedy: str) -> UserError:
    """The error for a word without an id."""
    return UserError(f"{where}: the vocabulary has neither the word {word!r} nor {UNK} to stand for it: {remedy}")


def build_vocabulary(counts: Mapping[str, int], max_size: int | None = None, min_count: int = 1) -> list[str]:
    """The words of a text and `<eos>`, most frequent first, equally frequent ones by code point.

    counts: how often each word occurs, `<eos>` included
    max_size: of the vocabulary, `<eos>` and `<unk>` included: the least frequent words are dropped
    min_count: words that occur less often are dropped

    Either bound adds `<unk>` to the vocabulary, with the count of all dropped words: the vocabulary is that of the text
    with these words replaced by `<unk>`.
    """
    if max_size is None and min_count == 1:
        return _by_frequency(counts)
    words = [word for word in _by_frequency(counts) if counts[word] >= min_count and word not in (EOS, UNK)]
    kept = {word: counts[word] for word in [EOS, *words[: max_size and max_size - 2]]}
    kept[UNK] = sum(counts.values()) - sum(kept.values())
    return _by_frequency(kept)


def _by_frequency(counts: Mapping[str, int]) -> list[str]:
    return sorted(counts, key=lambda word: (-counts[word], word))
