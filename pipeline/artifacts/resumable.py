"""The only way to start or resume a training run, for `train` and `sweep` alike."""

from collections.abc import Callable, Iterator
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
from pipeline.lm.device import describe, device_name
from pipeline.lm.distributed import rank, world_size
from pipeline.lm.record import EpochRecord
from pipeline.lm.settings import Settings
from pipeline.lm.training import Training
from pipeline.project.processes import broadcast


class ResumableTraining(Training):
    """A training run with a checkpoint after every epoch. If processes share it, the first one keeps the checkpoint.

    fingerprint: from `checkpoint.fingerprint`
    id: from `checkpoint.training_id`, in the process that keeps the checkpoint
    """

    def __init__(self, name: str, settings: Settings, corpus: Corpus) -> None:
        super().__init__(settings, corpus.train, corpus.valid, len(corpus.vocabulary))
        self.fingerprint = fingerprint(settings, corpus.fingerprint)
        self.checkpoint = checkpoint_path(name, self.fingerprint)
        self.id: str | None = None

    def run_epoch(self, on_step: Callable[[], object] = lambda: None) -> EpochRecord:
        """As `Training.run_epoch`, then write the checkpoint. May also raise OSError."""
        record = super().run_epoch(on_step)
        if rank() == 0:
            save_checkpoint(self.checkpoint, self.state_dict())
        return record

    def description(self) -> str:
        """One line on where it runs, and why there."""
        return describe(self.settings, self.device, self.precision)

    def circumstances(self) -> dict[str, str]:
        """Where it runs, for those who compare runs."""
        return {
            "device": str(self.device),
            "hardware": device_name(self.device),
            "precision": "tf32" if self.tf32 else str(self.precision),
            "processes": str(world_size()),
            "threads": str(torch.get_num_threads()),
        }


@contextmanager
def resumable(name: str, settings: Settings, corpus: Corpus) -> Iterator[ResumableTraining]:
    """Start a training run, or resume it from its checkpoint, which no other process may hold in the meantime.

    The checkpoint stays until `release`, or until whatever else keeps the results. Raises UserError and TrainingError.
    """
    training = ResumableTraining(name, settings, corpus)
    first = rank() == 0
    with exclusive(training.checkpoint) if first else nullcontext():
        if first:
            training.id = training_id(training.checkpoint, make=True)
        if saved := broadcast(load_checkpoint(training.checkpoint) if first else None):
            training.load_state_dict(saved)
        yield training
