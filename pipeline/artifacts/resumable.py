"""Starting and resuming training runs, for both `train` and `sweep`."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch

from pipeline.artifacts.checkpoint import (
    checkpoint_path,
    exclusive,
    fingerprint,
    load_checkpoint,
    save_checkpoint,
    training_id,
)
from pipeline.corpus.ids import Corpus
from pipeline.lm.distillation import Teacher
from pipeline.lm.distributed import in_any_process, rank, world_size
from pipeline.lm.record import EpochRecord
from pipeline.lm.settings import Settings
from pipeline.lm.training import Training
from pipeline.project.hardware import describe, device_name
from pipeline.project.interrupts import HeldInterrupts
from pipeline.project.processes import broadcast

WINDOWS_BETWEEN_AGREEMENTS = 10  # of processes that share a training run; an agreement exchanges a number
MAX_SHARE = 0.01  # of the time, for checkpoints in the middle of epochs


class ResumableTraining(Training):
    """A training run with a checkpoint after every epoch, every `checkpoint_minutes`, and when it is interrupted.

    If processes share it, the first one writes the checkpoint.

    fingerprint: from `checkpoint.fingerprint`
    id: from `checkpoint.training_id`, in the process that writes the checkpoint
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        corpus: Corpus,
        checkpoint_minutes: float,
        teachers: Sequence[Teacher] = (),
    ) -> None:
        super().__init__(settings, corpus.train, corpus.valid, len(corpus.vocabulary), teachers)
        self.fingerprint = fingerprint(settings, corpus.fingerprint)
        self.checkpoint = checkpoint_path(name, self.fingerprint)
        self.id: str | None = None
        self._seconds_between_checkpoints = 60 * checkpoint_minutes
        self._next_checkpoint = time.monotonic() + self._seconds_between_checkpoints
        self._windows = 0
        self._interrupts = HeldInterrupts()

    def run_epoch(self, on_window: Callable[[], object] = lambda: None) -> EpochRecord:
        """Like `Training.run_epoch`, with checkpoints: an interrupt waits for the next one. May also raise OSError."""

        def after_window() -> None:
            self._save_if_due()
            on_window()

        with self._interrupts:
            record = super().run_epoch(after_window)
            self._save()
        return record

    def _save_if_due(self) -> None:
        """Write a checkpoint if it is time for one, or if any of the processes was interrupted."""
        self._windows += 1
        if world_size() > 1 and self._windows % WINDOWS_BETWEEN_AGREEMENTS:
            return
        if in_any_process(bool(self._interrupts.pending) or time.monotonic() >= self._next_checkpoint):
            self._save()
            self._interrupts.let_through()

    def _save(self) -> None:
        start, state = time.monotonic(), self.state_dict()
        if rank() == 0:
            save_checkpoint(self.checkpoint, state)
        now = time.monotonic()
        self._next_checkpoint = now + max(self._seconds_between_checkpoints, (now - start) / MAX_SHARE)

    def position(self) -> str:
        """How far the training has got; empty before the first step."""
        if self.current:
            return f"step {self.current.steps:,} of epoch {len(self.history) + 1}"
        return f"epoch {len(self.history)}" if self.history else ""

    def description(self) -> str:
        """One line on the device and precision, and why they were chosen."""
        return describe(self.settings, self.device, self.precision)

    @property
    def gpu(self) -> str | None:
        """The GPU in use, with its memory; None on a CPU."""
        return device_name(self.device) if self.device.type == "cuda" else None

    def environment(self) -> dict[str, str]:
        """Hardware, precision and processes, as tags for comparing runs."""
        return {
            "device": str(self.device),
            "hardware": device_name(self.device),
            "precision": "tf32" if self.tf32 else str(self.precision),
            "processes": str(world_size()),
            "threads": str(torch.get_num_threads()),
        }


@contextmanager
def resumable(
    name: str,
    settings: Settings,
    corpus: Corpus,
    checkpoint_minutes: float,
    teachers: Sequence[Teacher] = (),
    *,
    waiting: str = "",
) -> Iterator[ResumableTraining]:
    """Start a training run, or resume it from its checkpoint, which is locked in the meantime.

    checkpoint_minutes: between checkpoints in the middle of an epoch; more if writing one takes long
    teachers: those of `settings.distillation`, which have read the text
    waiting: as in `checkpoint.exclusive`; ignored if processes share the training, as the others would time out

    The checkpoint stays until the results are stored (see `checkpoint.release`). Raises UserError and TrainingError.
    """
    training = ResumableTraining(name, settings, corpus, checkpoint_minutes, teachers)
    first = rank() == 0
    alone = world_size() == 1
    with exclusive(training.checkpoint, waiting=waiting if alone else "") if first else nullcontext():
        if first:
            training.id = training_id(training.checkpoint, create=True)
        if saved := broadcast(load_checkpoint(training.checkpoint) if first else None):
            training.load_state_dict(saved)
        yield training
