"""Sentences drawn from a model, word by word."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from pipeline.artifacts.weights import TrainedModel
from pipeline.corpus.vocabulary import Encoder, Sentence

BATCH_SIZE = 64


def continuations(
    trained: TrainedModel,
    prompt: Sentence,
    num_lines: int,
    max_words: int,
    seed: int,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Iterator[tuple[str, bool]]:
    """Lines that begin with the prompt, and whether each ended within `max_words` new words; see `generate`.

    A line is the same however many there are.
    """
    eos = Encoder(trained.vocabulary).eos
    generator = torch.Generator().manual_seed(seed)
    for first in range(0, num_lines, BATCH_SIZE):
        size = (min(BATCH_SIZE, num_lines - first), max_words)
        uniform = torch.rand(size, dtype=torch.float64, generator=generator)
        for ids in generate(trained.model, prompt.ids, eos, uniform, temperature, top_k):
            words = [trained.vocabulary[number] for number in ids if number != eos]
            yield " ".join([*prompt.words, *words]), ids[-1] == eos


@torch.no_grad()
def generate(
    model: nn.Module,
    prompt: Sequence[int],
    eos: int,
    uniform: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> list[list[int]]:
    """Sentences that continue `prompt`; each is a list of ids without the prompt, up to and including `<eos>`.

    uniform [batch, max_length]: numbers drawn uniformly from [0, 1), the only source of randomness; each row becomes a
    sentence. One that has not reached `<eos>` within `max_length` tokens is cut off there, and so ends without it.
    temperature: above 0; the logits are divided by it, so that less than 1 favours probable tokens.
    top_k: draw from this many most probable tokens (Fan et al. 2018, arXiv:1805.04833); None: from all.

    As in scoring, a sentence starts from the zero state and `<eos>`.
    """
    model.eval()
    device = next(model.parameters()).device
    batch, max_length = uniform.shape
    tokens = torch.tensor([eos, *prompt], device=device)[:, None].expand(-1, batch)  # [time, batch]
    sentences = torch.full((batch, max_length), eos, device=device)
    ended = torch.zeros(batch, dtype=torch.bool, device=device)
    state = None
    for step in range(max_length):
        logits, state = model(tokens, state)
        drawn = sample(logits[-1], uniform[:, step].to(device), temperature, top_k)  # [batch]
        sentences[:, step] = torch.where(ended, eos, drawn)
        ended |= drawn == eos
        if ended.all():
            break
        tokens = drawn[None]
    return [_up_to(eos, sentence) for sentence in sentences[:, : step + 1].tolist()]


def sample(logits: Tensor, uniform: Tensor, temperature: float = 1.0, top_k: int | None = None) -> Tensor:
    """Draw from the softmax by inversion: logits [batch, vocab], uniform [batch] in [0, 1) -> ids [batch].

    Takes the token at which the sum of the probabilities, in the order of ids, passes the uniform number.
    """
    logits = logits.double()
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]  # [batch, 1]
        logits = logits.masked_fill(logits < least, -torch.inf)
    differences = logits - logits.amax(dim=-1, keepdim=True)  # of at most 0: no temperature makes them overflow
    cumulative = (differences / temperature).softmax(dim=-1).cumsum(dim=-1)  # [batch, vocab]
    cumulative /= cumulative[:, -1:].clone()  # rounding leaves the last one slightly off 1
    return torch.searchsorted(cumulative, uniform.double()[:, None].contiguous(), right=True).squeeze(1)


def _up_to(token: int, sentence: list[int]) -> list[int]:
    return sentence[: sentence.index(token) + 1] if token in sentence else sentence
