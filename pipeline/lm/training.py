"""Training by truncated back-propagation through time, epoch by epoch."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.lm.batching import Batches
from pipeline.lm.device import products_in
from pipeline.lm.distributed import data_parallel, total, world_size
from pipeline.lm.evaluation import evaluate, perplexity
from pipeline.lm.model import LanguageModel, detach
from pipeline.lm.record import EpochRecord
from pipeline.lm.schedule import learning_rate
from pipeline.lm.settings import AdamW, Settings

OnStep = Callable[[], object]

STEPS_BETWEEN_CHECKS = 100


class DivergedError(Exception):
    """The loss became infinite or not a number."""


class Training:
    """A training in progress: model, optimizer, the record of every finished epoch and the best weights so far.

    `state_dict` and `load_state_dict` carry all of it, so a training that is restored after any epoch goes on to the
    same weights, to the bit, as one that was never interrupted.
    """

    def __init__(self, model: LanguageModel, settings: Settings, precision: torch.dtype = torch.float32) -> None:
        self.model = model
        self.data_parallel = data_parallel(model)
        self.settings = settings
        self.precision = precision
        self.optimizer = build_optimizer(model, settings)
        self.history: list[EpochRecord] = []
        self.best_weights: dict[str, Tensor] = {}

    @property
    def finished(self) -> bool:
        return len(self.history) >= self.settings.epochs

    def run_epoch(self, train: Batches, valid: Batches, on_step: OnStep = lambda: None) -> EpochRecord:
        """One pass over the training text, then the validation perplexity. Raises DivergedError."""
        epoch = len(self.history) + 1
        torch.manual_seed(epoch_seed(self.settings.seed, epoch))

        start = time.perf_counter()
        try:
            train_loss, grad_norm = train_epoch(
                self.data_parallel, self.optimizer, train, self.settings, epoch, self.precision, on_step
            )
        except DivergedError as error:
            raise DivergedError(f"{error} of epoch {epoch}: lower learning_rate or max_grad_norm") from None
        train_seconds = time.perf_counter() - start
        valid_loss = evaluate(self.model, valid)

        record = EpochRecord(
            epoch=epoch,
            learning_rate=learning_rate(self.settings, epoch - 0.5),
            train_perplexity=perplexity(train_loss),
            valid_perplexity=perplexity(valid_loss),
            grad_norm=grad_norm,
            tokens_per_second=train.num_tokens / train_seconds,
            seconds=time.perf_counter() - start,
            finished_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        if not math.isfinite(record.train_perplexity + record.valid_perplexity + record.grad_norm):
            raise DivergedError(
                f"the perplexity or the gradient overflows in epoch {epoch}: lower learning_rate or max_grad_norm"
            )
        if all(record.valid_perplexity < earlier.valid_perplexity for earlier in self.history):
            self.best_weights = {name: weight.detach().clone() for name, weight in self.model.state_dict().items()}
        self.history.append(record)
        return record

    def state_dict(self) -> dict[str, Any]:
        """All that a later process needs to go on: tensors, numbers and strings only."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [asdict(record) for record in self.history],
            "best_weights": self.best_weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [EpochRecord(**record) for record in state["history"]]
        self.best_weights = state["best_weights"]


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Batches,
    settings: Settings,
    epoch: int = 1,
    precision: torch.dtype = torch.float32,
    on_step: OnStep = lambda: None,
) -> tuple[float, float]:
    """Update the model once for every window of the text; returns mean loss in nats a token, and mean gradient norm.

    The state is carried from window to window, the gradient is not. Losses stay on the device and are looked at now
    and then, for a look at every step would make a GPU wait. Raises DivergedError.
    """
    device = train.inputs.device
    max_norm = settings.max_grad_norm or math.inf
    first = int(torch.randint(1, train.bptt + 1, ())) if settings.random_windows else train.bptt
    windows = list(train.windows(first))
    losses = torch.zeros(len(windows), device=device)
    grad_norms = torch.zeros(len(windows), device=device)
    state = None
    model.train()
    for step, (inputs, targets, num_tokens) in enumerate(windows):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, epoch - 1 + step / len(windows))
        with products_in(precision, device):
            loss, state = model(inputs, detach(state), targets)  # summed over the window's tokens
        divisor = num_tokens if settings.loss == "mean" else train.batch_size
        optimizer.zero_grad()
        (loss * world_size() / divisor).backward()  # processes that share the batch average their gradients
        grad_norms[step] = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        losses[step] = loss.detach()
        on_step()
        if step % STEPS_BETWEEN_CHECKS == 0 or step == len(windows) - 1:
            check_finite(total(losses))
    return total(losses).sum(dtype=torch.float64).item() / train.num_tokens, grad_norms.mean().item()


def check_finite(losses: Tensor) -> None:
    """Raise DivergedError, naming the step, when a loss is infinite or not a number."""
    diverged = (~losses.isfinite()).nonzero()
    if len(diverged):
        step = int(diverged[0])
        raise DivergedError(f"the loss is {losses[step].item()} at step {step + 1}")


def build_optimizer(model: LanguageModel, settings: Settings) -> torch.optim.Optimizer:
    """SGD as in Zaremba et al. (2014), with what momentum and weight decay the settings add, or AdamW."""
    chosen, rate = settings.optimizer, settings.learning_rate
    if isinstance(chosen, AdamW):
        return torch.optim.AdamW(model.parameters(), rate, weight_decay=chosen.weight_decay, fused=True)
    return torch.optim.SGD(model.parameters(), rate, chosen.momentum, weight_decay=chosen.weight_decay, fused=True)


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for each epoch, so that a resumed epoch draws the dropout masks that it would have drawn."""
    return seed * 1_000_003 + epoch
