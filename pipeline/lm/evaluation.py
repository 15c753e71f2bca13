"""Perplexity of a text under a model."""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.lm.batching import IGNORED, Batches
from pipeline.lm.distributed import total
from pipeline.lm.settings import Settings


def batches_of(splits: Mapping[str, Tensor], settings: Settings, device: torch.device) -> dict[str, Batches]:
    """The splits of a corpus, each [length], as batches for evaluating a model with these settings."""
    return {split: Batches(text.to(device), settings.batch_size, settings.bptt) for split, text in splits.items()}


@torch.no_grad()
def evaluate(model: nn.Module, batches: Batches, on_window: Callable[[], object] = lambda: None) -> float:
    """The mean loss of a text in nats per token: each token after the first predicted once, dropout off, in float32.

    Losses are summed over tokens and divided once: a mean of window means would be a different number.
    """
    model.eval()
    state = None
    total_loss = torch.zeros((), dtype=torch.float64, device=batches.device)
    for inputs, targets, _ in batches:
        logits, state = model(inputs, state)
        total_loss += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        on_window()
    return total(total_loss).item() / batches.num_tokens


def perplexity(loss: float) -> float:
    """exp of a mean loss in nats per token; infinite if too large for a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
