"""Text as a trained model reads it: a line is a sentence, a word is what stands between blanks.

`preprocess` reads the corpus in the same way: each line ends in `<eos>`, an empty one is nothing but `<eos>`, and a
word outside the vocabulary becomes `<unk>`.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.console import UserError
from pipeline.corpus import EOS, UNK
from pipeline.lm.evaluation import perplexity
from pipeline.lm.scoring import token_losses
from pipeline.weights import TrainedModel

CHUNK_TOKENS = 2**13  # sentences of so many tokens are sorted by length and scored together


@dataclass(frozen=True)
class Sentence:
    """words and their ids; unknown: the places of the words that became `<unk>`."""

    words: Sequence[str]
    ids: Sequence[int]
    unknown: Sequence[int]


@dataclass(frozen=True)
class SentenceScore:
    """losses [words + 1] in nats: of each word, and of the `<eos>` after them."""

    sentence: Sentence
    losses: Tensor

    @property
    def num_tokens(self) -> int:
        return len(self.losses)

    @property
    def total_loss(self) -> float:
        return self.losses.sum(dtype=torch.float64).item()

    @property
    def perplexity(self) -> float:
        """Per token, `<eos>` included."""
        return perplexity(self.total_loss / self.num_tokens)


class Encoder:
    """Words to ids."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._id_of = {word: number for number, word in enumerate(vocabulary)}
        self._unknown = self._id_of.get(UNK)
        self.eos = self._id_of[EOS]

    def encode(self, words: Sequence[str], where: str) -> Sentence:
        """Raises UserError, saying where, at the word `<eos>` and at an unknown word when there is no `<unk>`."""
        if EOS in words:
            raise UserError(f"{where}: has the word {EOS}, which stands for the line's end: remove it")
        unknown = [place for place, word in enumerate(words) if word not in self._id_of]
        ids = []
        for word in words:
            number = self._id_of.get(word, self._unknown)
            if number is None:
                raise UserError(
                    f"{where}: the model's vocabulary lacks the word {word!r}, and {UNK} to stand for it: "
                    "use a model that was trained on such a text"
                )
            ids.append(number)
        return Sentence(words, ids, unknown)


def read_sentences(path: Path | None, on_bytes: Callable[[int], object] = lambda _: None) -> Iterator[list[str]]:
    """The words of each line of a file, or of stdin where path is None, one line in memory at a time.

    Calls `on_bytes` with each line's length. Raises UserError when the file is missing or not a text in UTF-8.
    """
    name = path or "stdin"
    number = 0
    try:
        with sys.stdin.buffer if path is None else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if b"\0" in line:
                    raise UserError(f"{name}, line {number}: not text but binary data: give a text, a sentence a line")
                on_bytes(len(line))
                yield line.decode("utf-8").split()
    except UnicodeDecodeError:
        raise UserError(f"{name}, line {number}: not text in UTF-8: convert it to UTF-8") from None
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{name} is not a file: name a text, a sentence a line, or - for stdin") from None


def score_sentences(trained: TrainedModel, sentences: Iterable[Sequence[str]]) -> Iterator[SentenceScore]:
    """Score each sentence on its own, in their order; see `token_losses`. Raises UserError naming the line."""
    encoder = Encoder(trained.vocabulary)
    encoded = (encoder.encode(words, f"line {number}") for number, words in enumerate(sentences, start=1))
    for chunk in _chunks(encoded, CHUNK_TOKENS):
        losses = token_losses(trained.model, [sentence.ids for sentence in chunk], encoder.eos)
        yield from map(SentenceScore, chunk, losses)


def _chunks(sentences: Iterable[Sentence], num_tokens: int) -> Iterator[list[Sentence]]:
    """Successive sentences, cut after the one with which they reach `num_tokens`."""
    chunk: list[Sentence] = []
    tokens = 0
    for sentence in sentences:
        chunk.append(sentence)
        tokens += len(sentence.ids) + 1
        if tokens >= num_tokens:
            yield chunk
            chunk, tokens = [], 0
    if chunk:
        yield chunk
