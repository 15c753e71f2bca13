"""Dynamic evaluation: a model that goes on learning from the text that it is tested on, each token after predicting it.

Krause, Kahembwe, Murray and Renals (2018), "Dynamic evaluation of neural sequence models", arXiv:1709.07432.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.lm.batching import Batches
from pipeline.lm.model import LanguageModel, detach, without_dropout
from pipeline.lm.settings import DynamicEvaluation

STATISTICS_BATCH_SIZE = 100  # as in the paper's own code


@dataclass(frozen=True)
class GradientScale:
    """The root mean square of each parameter's gradient over a training text, and its mean over all parameters."""

    rms: list[Tensor]
    mean: float


def gradient_scale(
    model: LanguageModel, train: Tensor, bptt: int, on_window: Callable[[], object] = lambda: None
) -> GradientScale:
    """What the updates are scaled by (equation 5): train [length] is read in windows of `bptt`."""
    without_dropout(model)
    parameters = list(model.parameters())
    squares = [torch.zeros_like(parameter) for parameter in parameters]
    windows = Batches(train, STATISTICS_BATCH_SIZE, bptt)
    state = None
    for inputs, targets, num_tokens in windows:
        loss, state = model(inputs, detach(state), targets)
        gradients = torch.autograd.grad(loss / num_tokens, parameters)
        for square, gradient in zip(squares, gradients, strict=True):
            square.addcmul_(gradient, gradient)
        on_window()
    rms = [(square / len(windows)).sqrt() for square in squares]
    return GradientScale(rms, torch.stack([part.mean() for part in rms]).mean().item())


def evaluate_dynamically(
    model: LanguageModel,
    text: Tensor,
    scale: GradientScale,
    settings: DynamicEvaluation,
    on_window: Callable[[], object] = lambda: None,
) -> float:
    """The mean loss of a text [length] in nats a token, each predicted before the model learns from it.

    After each window of `bptt` tokens a copy of the model takes a step down the window's mean loss, scaled by the
    gradient's usual size, and is pulled back towards its trained weights (equation 6). The model itself stays as it is.
    """
    learner = without_dropout(copy.deepcopy(model))
    parameters, trained = list(learner.parameters()), list(model.parameters())
    rates = [settings.learning_rate / (rms + settings.epsilon) for rms in scale.rms]
    pulls = [(settings.decay * rms / scale.mean).clamp_(max=1) for rms in scale.rms]
    windows = Batches(text, 1, settings.bptt)
    total_loss = torch.zeros((), dtype=torch.float64, device=text.device)
    state = None
    for inputs, targets, num_tokens in windows:
        loss, state = learner(inputs, detach(state), targets)
        total_loss += loss.detach()
        gradients = torch.autograd.grad(loss / num_tokens, parameters)
        with torch.no_grad():
            for parameter, start, gradient, rate, pull in zip(
                parameters, trained, gradients, rates, pulls, strict=True
            ):
                parameter.lerp_(start, pull).addcmul_(gradient, rate, value=-1)
        on_window()
    return total_loss.item() / windows.num_tokens


def dynamic_losses(
    model: LanguageModel,
    texts: Mapping[str, Tensor],
    settings: DynamicEvaluation,
    on_window: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """The mean loss of valid and of test, the gradient's usual size being that over train; texts: split -> [length]."""
    scale = gradient_scale(model, texts["train"], settings.bptt, on_window)
    return {split: evaluate_dynamically(model, texts[split], scale, settings, on_window) for split in ("valid", "test")}


def num_windows(texts: Mapping[str, Tensor], settings: DynamicEvaluation) -> int:
    """How often `dynamic_losses` calls `on_window`."""
    sizes = {"train": STATISTICS_BATCH_SIZE, "valid": 1, "test": 1}
    return sum(len(Batches(texts[split], batch_size, settings.bptt)) for split, batch_size in sizes.items())
