"""Temperature scaling: one number that divides all logits of a trained model, fitted on the validation text.

Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks", arXiv:1706.04599.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pipeline.lm.batching import IGNORED, Batches
from pipeline.lm.evaluation import evaluate
from pipeline.lm.model import LanguageModel, State

PASSES = 4  # of Newton's method; from 1, the third changes a perplexity by less than 0.001


class AtTemperature(nn.Module):
    """A model whose logits are divided by a temperature: above 1, it is less sure of itself."""

    def __init__(self, model: LanguageModel, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        """tokens [time, batch], state of the previous window -> logits [time, batch, vocab], state."""
        logits, state = self.model(tokens, state)
        return logits / self.temperature, state


@torch.no_grad()
def best_temperature(model: LanguageModel, batches: Batches, on_window: Callable[[], object] = lambda: None) -> float:
    """The temperature at which the loss of a text is lowest; reads the text PASSES times.

    The loss is convex in the inverse temperature b: with p = softmax(b z) of a token's logits z, its slope is the mean
    of z under p less the target's logit, and its curvature the variance of z under p (Newton's method). A step at most
    halves or doubles b.
    """
    model.eval()
    inverse = 1.0
    for _ in range(PASSES):
        state = None
        slope, curvature = torch.zeros(2, dtype=torch.float64, device=batches.device)
        for inputs, targets, _ in batches:
            logits, state = model(inputs, state)
            counts = targets.flatten() != IGNORED
            z, target = logits.flatten(0, 1)[counts], targets.flatten()[counts, None]
            p = torch.softmax(inverse * z, 1)
            mean = (p * z).sum(1, keepdim=True)
            slope += (mean - z.gather(1, target)).sum()
            curvature += (p * (z - mean).square()).sum()
            on_window()
        inverse = min(max(inverse - (slope / curvature).item(), inverse / 2), inverse * 2)
    return 1 / inverse


def tempered_losses(
    model: LanguageModel, splits: Mapping[str, Batches], on_window: Callable[[], object] = lambda: None
) -> tuple[float, dict[str, float]]:
    """The best temperature of `valid`, and the mean losses of `valid` and `test` at it, in nats per token."""
    temperature = best_temperature(model, splits["valid"], on_window)
    tempered = AtTemperature(model, temperature)
    return temperature, {split: evaluate(tempered, splits[split], on_window) for split in ("valid", "test")}


def num_windows(splits: Mapping[str, Batches]) -> int:
    """How many windows `tempered_losses` reads."""
    return (PASSES + 1) * len(splits["valid"]) + len(splits["test"])
