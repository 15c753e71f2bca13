"""Training by truncated back-propagation through time, epoch by epoch."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.lm.batching import Batches, Window
from pipeline.lm.device import choose_device, choose_precision, products_in
from pipeline.lm.distributed import check_shares, data_parallel, total, world_size
from pipeline.lm.errors import DivergedError
from pipeline.lm.evaluation import evaluate, perplexity
from pipeline.lm.model import LanguageModel, State, build_model, detach
from pipeline.lm.record import EpochRecord
from pipeline.lm.schedule import learning_rate
from pipeline.lm.settings import AdamW, Settings

OnStep = Callable[[], object]

STEPS_BETWEEN_CHECKS = 100
REMEDY = "lower learning_rate or max_grad_norm"


class Training:
    """A training run in progress: model, optimizer, the record of every finished epoch and the best weights so far.

    `state_dict` and `load_state_dict` carry all of it, so a run that is restored after any epoch goes on to the same
    weights, to the bit, as one that was never interrupted.
    """

    def __init__(self, settings: Settings, train: Tensor, valid: Tensor, vocabulary_size: int) -> None:
        """train, valid [length] int64: the ids of the texts. Raises DeviceError and SharesError."""
        check_shares(settings.batch_size)
        self.settings = settings
        self.device = choose_device(settings.device)
        self.precision = choose_precision(settings.precision, self.device)
        self.model = build_model(settings, vocabulary_size).to(self.device)
        self.data_parallel = data_parallel(self.model)
        self.optimizer = build_optimizer(self.model, settings)
        self.train = Batches(train.to(self.device), settings.batch_size, settings.bptt)
        self.valid = Batches(valid.to(self.device), settings.batch_size, settings.bptt)
        self.history: list[EpochRecord] = []
        self.best_weights: dict[str, Tensor] = {}

    @property
    def finished(self) -> bool:
        return len(self.history) >= self.settings.epochs

    def run_epoch(self, on_step: OnStep = lambda: None) -> EpochRecord:
        """One pass over the training text, then the validation perplexity. Raises DivergedError."""
        epoch = len(self.history) + 1
        torch.manual_seed(epoch_seed(self.settings.seed, epoch))

        start = time.perf_counter()
        train_loss, grad_norm = self.train_epoch(epoch, on_step)
        train_seconds = time.perf_counter() - start
        valid_loss = evaluate(self.model, self.valid)

        record = EpochRecord(
            epoch=epoch,
            learning_rate=learning_rate(self.settings, epoch - 0.5),
            train_perplexity=perplexity(train_loss),
            valid_perplexity=perplexity(valid_loss),
            grad_norm=grad_norm,
            tokens_per_second=self.train.num_tokens / train_seconds,
            seconds=time.perf_counter() - start,
            finished_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        if not math.isfinite(record.train_perplexity + record.valid_perplexity + record.grad_norm):
            raise DivergedError(f"the perplexity or the gradient overflows in epoch {epoch}: {REMEDY}")
        if all(record.valid_perplexity < earlier.valid_perplexity for earlier in self.history):
            self.best_weights = {name: weight.detach().clone() for name, weight in self.model.state_dict().items()}
        self.history.append(record)
        return record

    def train_epoch(self, epoch: int, on_step: OnStep = lambda: None) -> tuple[float, float]:
        """Update the model once for every window; returns the mean loss in nats a token, and the mean gradient norm.

        The state is carried from window to window, the gradient is not. Losses stay on the device and are looked at
        now and then, for a look at every step would make a GPU wait. Raises DivergedError.
        """
        bptt = self.settings.bptt
        first = int(torch.randint(1, bptt + 1, ())) if self.settings.random_windows else bptt
        windows = list(self.train.windows(first))
        losses, grad_norms = torch.zeros(2, len(windows), device=self.device)
        state = None
        self.model.train()
        for step, window in enumerate(windows):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.settings, epoch - 1 + step / len(windows))
            losses[step], grad_norms[step], state = train_step(
                self.data_parallel, self.optimizer, window, state, self.settings, self.precision
            )
            on_step()
            if step % STEPS_BETWEEN_CHECKS == 0 or step == len(windows) - 1:
                check_finite(total(losses), epoch)
        mean_loss = total(losses).sum(dtype=torch.float64).item() / self.train.num_tokens
        return mean_loss, grad_norms.mean().item()

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


def check_runs_here(settings: Settings) -> None:
    """Raise DeviceError or SharesError when these settings cannot be trained here, before anything is built."""
    check_shares(settings.batch_size)
    choose_precision(settings.precision, choose_device(settings.device))


class Step(NamedTuple):
    """loss: in nats, summed over the window; grad_norm: before clipping; state: for the next window."""

    loss: Tensor
    grad_norm: Tensor
    state: State


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    window: Window,
    state: State | None,
    settings: Settings,
    precision: torch.dtype,
) -> Step:
    """Update the weights once: forward from the state of the window before, backward, clip, step."""
    inputs, targets, num_tokens = window
    with products_in(precision, inputs.device):
        loss, state = model(inputs, detach(state), targets)
    divisor = num_tokens if settings.loss == "mean" else settings.batch_size
    optimizer.zero_grad()
    (loss * world_size() / divisor).backward()  # processes that share the batch average their gradients
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm or math.inf)
    optimizer.step()
    return Step(loss.detach(), grad_norm, state)


def check_finite(losses: Tensor, epoch: int) -> None:
    """Raise DivergedError, naming the step, when a loss is infinite or not a number."""
    diverged = (~losses.isfinite()).nonzero()
    if len(diverged):
        step = int(diverged[0])
        raise DivergedError(f"the loss is {losses[step].item()} at step {step + 1} of epoch {epoch}: {REMEDY}")


def build_optimizer(model: LanguageModel, settings: Settings) -> torch.optim.Optimizer:
    """SGD as in Zaremba et al. (2014), with what momentum and weight decay the settings add, or AdamW."""
    chosen, rate = settings.optimizer, settings.learning_rate
    if isinstance(chosen, AdamW):
        return torch.optim.AdamW(model.parameters(), rate, weight_decay=chosen.weight_decay, fused=True)
    return torch.optim.SGD(model.parameters(), rate, chosen.momentum, weight_decay=chosen.weight_decay, fused=True)


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for each epoch, so that a resumed epoch draws the dropout masks that it would have drawn."""
    return seed * 1_000_003 + epoch
