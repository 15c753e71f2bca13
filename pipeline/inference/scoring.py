"""How well a model predicts sentences, token by token."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.lm.batching import IGNORED

OnTokens = Callable[[int], object]

MAX_TOKENS = 512  # logits of this many tokens are in memory at once


@torch.no_grad()
def token_losses(
    model: nn.Module,
    sentences: Sequence[Sequence[int]],
    eos: int,
    max_tokens: int = MAX_TOKENS,
    on_tokens: OnTokens = lambda _: None,
) -> list[Tensor]:
    """The loss of each sentence's tokens and of the `<eos>` after them: float32 [words + 1] in nats, on the CPU.

    Each sentence is scored on its own: from the zero state, its first word is predicted from `<eos>`. Its losses
    therefore do not depend on the other sentences, which only share its batch. Dropout is off and products are in
    float32.
    on_tokens: called from time to time with the number of tokens scored since the last call.
    """
    model.eval()
    device = next(model.parameters()).device
    losses: list[Tensor] = [torch.empty(0)] * len(sentences)
    for indices in _batches([len(sentence) + 1 for sentence in sentences], max_tokens):
        inputs = _pad([[eos, *sentences[index]] for index in indices], padding=eos).to(device)  # [time, batch]
        targets = _pad([[*sentences[index], eos] for index in indices], padding=IGNORED).to(device)
        lengths = [len(sentences[index]) + 1 for index in indices]
        window_losses = _window_by_window(model, inputs, targets, max_tokens, lengths, on_tokens)
        batch_losses = window_losses.t().cpu()  # [batch, time]
        for row, index in zip(batch_losses, indices, strict=True):
            losses[index] = row[: len(sentences[index]) + 1].clone()
    return losses


def _batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices of sentences of similar length: as many as fit into `max_tokens` with padding, and at least one."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _pad(rows: Sequence[Sequence[int]], padding: int) -> Tensor:
    """Rows of unequal length -> [time, batch] int64, each row a column, the ends filled up with `padding`."""
    columns = [torch.tensor(row, dtype=torch.int64) for row in rows]
    return nn.utils.rnn.pad_sequence(columns, padding_value=padding)


def _window_by_window(
    model: nn.Module, inputs: Tensor, targets: Tensor, max_tokens: int, lengths: Sequence[int], on_tokens: OnTokens
) -> Tensor:
    """inputs, targets [time, batch] -> losses [time, batch], zero where the target is padding.

    lengths: of each column without padding.

    A long batch is read in windows, and the state is carried over, so that no sentence is too long for the memory.
    """
    window = max(1, max_tokens // inputs.shape[1])
    state = None
    losses = []
    for start in range(0, len(inputs), window):
        rows = slice(start, start + window)
        logits, state = model(inputs[rows], state)
        loss = F.cross_entropy(
            logits.flatten(0, 1), targets[rows].flatten(), ignore_index=IGNORED, reduction="none"
        )  # [time * batch]
        losses.append(loss.view(-1, inputs.shape[1]))
        on_tokens(sum(min(max(length - start, 0), window) for length in lengths))
    return torch.cat(losses)
