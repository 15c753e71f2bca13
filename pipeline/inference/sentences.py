"""Sentences scored by a trained model, one per line, split into words as in `preprocess`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.artifacts.weights import TrainedModel
from pipeline.corpus.vocabulary import Encoder, Sentence
from pipeline.inference.scoring import token_losses
from pipeline.lm.evaluation import perplexity

CHUNK_TOKENS = 2**13  # sentences with this many tokens in total are sorted by length and scored together


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


def score_sentences(
    trained: TrainedModel,
    sentences: Iterable[Sequence[str]],
    on_share: Callable[[float], object] = lambda _: None,
) -> Iterator[SentenceScore]:
    """Score each sentence on its own, in order; see `token_losses`. Raises UserError naming the line.

    on_share: called from time to time with the scored share of the sentences that have been taken but not yet yielded.
    """
    encoder = Encoder(trained.vocabulary, lower_case=trained.lower_case)
    encoded = (encoder.encode(words, f"line {number}") for number, words in enumerate(sentences, start=1))
    for chunk in _chunks(encoded, CHUNK_TOKENS):
        tokens = sum(len(sentence.ids) + 1 for sentence in chunk)
        done = 0

        def scored(number: int, tokens: int = tokens) -> None:
            nonlocal done
            done += number
            on_share(done / tokens)

        losses = token_losses(trained.model, [sentence.ids for sentence in chunk], encoder.eos, on_tokens=scored)
        yield from map(SentenceScore, chunk, losses)


def _chunks(sentences: Iterable[Sentence], num_tokens: int) -> Iterator[list[Sentence]]:
    """Successive sentences in chunks, each cut after the sentence with which it reaches `num_tokens`."""
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
