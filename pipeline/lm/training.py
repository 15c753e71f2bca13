"""Training by truncated back-propagation through time, epoch by epoch."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipeline.lm.backend import backend
from pipeline.lm.batching import Batches
from pipeline.lm.device import choose_device, choose_precision, chooses_tf32, tf32_products
from pipeline.lm.distillation import Teacher, Teachers
from pipeline.lm.distributed import check_shares, data_parallel, total, world_size
from pipeline.lm.errors import DivergedError, OverflowedError
from pipeline.lm.evaluation import evaluate, in_columns, perplexity
from pipeline.lm.model import build_model, start_as_unigrams
from pipeline.lm.progress import EpochInProgress, random_state, set_random_state
from pipeline.lm.record import EpochRecord, is_whole
from pipeline.lm.replay import ReplayedSteps
from pipeline.lm.schedule import learning_rate
from pipeline.lm.settings import Settings
from pipeline.lm.step import Given, loss_scale, train_step
from pipeline.lm.update import build_optimizer

OnWindow = Callable[[], object]

STEPS_BETWEEN_CHECKS = 100


class Training:
    """A training run in progress: model, optimizer, the record of every finished epoch and the best weights so far.

    `state_dict` and `load_state_dict` carry all of it, so a run that is restored after any step goes on to the same
    weights, to the bit, as one that was never interrupted.
    """

    def __init__(
        self,
        settings: Settings,
        train: Tensor,
        valid: Tensor,
        vocabulary_size: int,
        teachers: Sequence[Teacher] = (),
    ) -> None:
        """train, valid [length] of any integer type: the ids of the texts.

        teachers: those of `settings.distillation`, which have read `train` in the layout of `train_layout`

        Raises DeviceError and SharesError.
        """
        check_shares(settings.batch_size)
        assert len(teachers) == len(settings.teachers)
        self.settings = settings
        self.device = choose_device(settings.device)
        self.precision = choose_precision(settings.precision, self.device)
        self.tf32 = chooses_tf32(settings.precision, self.device)
        self.model = build_model(settings, vocabulary_size).to(self.device)
        if settings.unigram_bias:
            start_as_unigrams(self.model, train)
        self.data_parallel = data_parallel(self.model)
        self.optimizer = build_optimizer(self.model, settings)
        self.train = train_layout(train.to(self.device), settings)
        self.valid = in_columns(valid.to(self.device))
        self.teachers: Teachers | None = None
        if settings.distillation:
            self.teachers = Teachers(teachers, settings.distillation.share, self.precision, self.device)
        self.history: list[EpochRecord] = []
        self.current: EpochInProgress | None = None
        self.best_weights: dict[str, Tensor] = {}

    @property
    def finished(self) -> bool:
        return is_whole(self.history, self.settings)

    @property
    def steps_taken(self) -> int:
        """In all epochs so far, assuming that all have equally many windows."""
        return len(self.history) * len(self.train) + (self.current.steps if self.current else 0)

    def run_epoch(self, on_window: OnWindow = lambda: None) -> EpochRecord:
        """One pass over the training text, or its rest, then the validation perplexity. Raises DivergedError.

        on_window: called after each training step and each window of validation, when `state_dict` has all that is
        needed to resume; what it raises ends the epoch there
        """
        epoch = len(self.history) + 1
        torch.manual_seed(epoch_seed(self.settings.seed, epoch))

        train_loss, grad_norm = self.train_epoch(epoch, on_window)
        assert self.current is not None
        train_seconds, start = self.current.seconds, time.perf_counter()
        valid_loss = evaluate(self.model, self.valid, on_window)

        record = EpochRecord(
            epoch=epoch,
            learning_rate=learning_rate(self.settings, epoch - 0.5),
            train_perplexity=perplexity(train_loss),
            valid_perplexity=perplexity(valid_loss),
            grad_norm=grad_norm,
            tokens_per_second=self.train.num_tokens / train_seconds,
            seconds=train_seconds + time.perf_counter() - start,
            finished_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        if not math.isfinite(record.train_perplexity + record.valid_perplexity + record.grad_norm):
            raise OverflowedError(epoch)
        if all(record.valid_perplexity < earlier.valid_perplexity for earlier in self.history):
            self.best_weights = {name: weight.detach().clone() for name, weight in self.model.state_dict().items()}
        self.history.append(record)
        self.current = None
        return record

    def train_epoch(self, epoch: int, on_window: OnWindow = lambda: None) -> tuple[float, float]:
        """Update the model once per window; returns the mean loss in nats per token and the mean gradient norm.

        The state is carried from window to window, the gradient is not. Losses stay on the device and are checked only
        now and then, because checking every step would make a GPU wait. Raises DivergedError.
        """
        bptt = self.settings.bptt
        first = int(torch.randint(1, bptt + 1, ())) if self.settings.random_windows else bptt
        windows = self.train.cut_at(first)
        current, take_step = self.enter_epoch(windows)
        losses, grad_norms = current.results
        start, rate = time.perf_counter() - current.seconds, math.nan
        with tf32_products(self.tf32):
            for step in range(current.steps, len(windows)):
                before, rate = rate, learning_rate(self.settings, epoch - 1 + step / len(windows))
                if rate != before:
                    backend(self.device).set_rate(self.optimizer, rate)
                given, num_tokens = self.given(windows, step)
                loss, grad_norm, current.state = take_step(given, current.state)
                torch.stack((loss, grad_norm), out=current.results[:, step])
                current.steps, current.seconds = step + 1, time.perf_counter() - start
                current.tokens += num_tokens
                on_window()
                if step % STEPS_BETWEEN_CHECKS == 0 or step == len(windows) - 1:
                    check_finite(total(losses), epoch)
        mean_loss = total(losses).sum(dtype=torch.float64).item() / self.train.num_tokens
        current.seconds = time.perf_counter() - start  # now that a GPU has done it all
        return mean_loss, grad_norms.mean().item()

    def enter_epoch(self, windows: Batches) -> tuple[EpochInProgress, ReplayedSteps]:
        """Begin an epoch or return to where one was interrupted; also returns what takes its steps."""
        self.model.train()
        take_step = self.steps()
        if self.current is None:
            results = torch.zeros(2, len(windows), device=self.device)
            self.current = EpochInProgress(results, random_state(self.device))
        else:
            backend(self.device).set_rate(self.optimizer, self.settings.learning_rate)
            with tf32_products(self.tf32):
                take_step.rehearse(
                    lambda step: self.given(windows, step)[0], self.current.steps, self.weights_and_buffers()
                )
            set_random_state(self.current.random, self.device)
        return self.current, take_step

    def given(self, windows: Batches, step: int) -> tuple[Given, int]:
        """What a step learns from, and the number of its targets in all columns."""
        inputs, targets, num_tokens = windows[step]
        scale = loss_scale(num_tokens, self.settings, self.device)
        soft = self.teachers.soft_targets(*windows.steps(step)) if self.teachers else None
        return Given(inputs, targets, scale, soft), num_tokens

    def steps(self) -> ReplayedSteps:
        """Takes the steps of an epoch. Several processes exchange gradients, which cannot be recorded."""
        step = partial(train_step, self.data_parallel, self.optimizer, self.settings, self.precision)
        recorder = backend(self.device).recorder
        if self.settings.cuda_graph == "off" or world_size() > 1:
            recorder = None
        return ReplayedSteps(step, self.settings.bptt, recorder and recorder())

    def weights_and_buffers(self) -> list[Tensor]:
        """The tensors that a step changes: the weights and the optimizer's state."""
        buffers = [buffer for of_weight in self.optimizer.state.values() for buffer in of_weight.values()]
        return [*self.model.parameters(), *filter(torch.is_tensor, buffers)]

    def state_dict(self) -> dict[str, Any]:
        """All that a later process needs in order to continue: tensors, numbers and strings only.

        In the middle of an epoch all processes that share the training have to call it.
        """
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [asdict(record) for record in self.history],
            "best_weights": self.best_weights,
            "current": self.current and self.current.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [EpochRecord(**record) for record in state["history"]]
        self.best_weights = state["best_weights"]
        current = state["current"]
        self.current = current and EpochInProgress.from_state_dict(current, self.device)


def train_layout(text: Tensor, settings: Settings) -> Batches:
    """The training text [length], as it is read in training and, before that, by teachers."""
    return Batches(text, settings.batch_size, settings.bptt)


def check_runs_here(settings: Settings) -> None:
    """Raise DeviceError or SharesError if these settings cannot be trained here, before anything is built."""
    check_shares(settings.batch_size)
    choose_precision(settings.precision, choose_device(settings.device))


def check_finite(losses: Tensor, epoch: int) -> None:
    """Raise DivergedError, naming the step, if a loss is infinite or not a number."""
    diverged = (~losses.isfinite()).nonzero()
    if len(diverged):
        step = int(diverged[0])
        raise DivergedError(losses[step].item(), step + 1, epoch)


def epoch_seed(seed: int, epoch: int) -> int:
    """Each epoch has its own seed, so that a resumed epoch draws the same dropout masks."""
    return seed * 1_000_003 + epoch
