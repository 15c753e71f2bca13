"""Perplexity of a text under a model."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.lm.batching import IGNORED, Batches
from pipeline.lm.distributed import total

# The layout in which every text is evaluated, whatever the model was trained with, so that figures can be compared.
# Each column starts cold, without the words before it: a few long columns cost little perplexity, and side by side they
# are read several times as fast as a single one.
COLUMNS = 20
SHORTEST_COLUMN = 500  # tokens; a shorter text has fewer columns
STEPS = 25


def in_columns(text: Tensor) -> Batches:
    """A text [length] in the layout for evaluation: 20 columns, or one for each 500 tokens where those are fewer."""
    return Batches(text, min(COLUMNS, max(1, (len(text) - 1) // SHORTEST_COLUMN)), STEPS)


def batches_of(splits: Mapping[str, Tensor], device: torch.device) -> dict[str, Batches]:
    """The splits of a corpus, each [length], in the layout for evaluation."""
    return {split: in_columns(text.to(device)) for split, text in splits.items()}


@torch.no_grad()
def evaluate(model: nn.Module, batches: Batches, on_window: Callable[[], object] = lambda: None) -> float:
    """The mean loss of a text in nats per token: each token after the first predicted once, dropout off, in float32.

    Losses are summed over tokens and divided once: a mean of window means would be a different number.
    """
    model.eval()
    state = None
    total_loss = torch.zeros((), dtype=torch.float64, device=batches.device)
    for inputs, targets, _ in batches:
        if len(inputs[0]):  # else this process has none of the columns
            logits, state = model(inputs, state)
            total_loss += cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        on_window()
    return total(total_loss).item() / batches.num_tokens


def perplexity(loss: float) -> float:
    """exp of a mean loss in nats per token; infinite if too large for a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
