"""A model's teachers: their names, their histories, and their features of the training text.

The features are in a file next to the teacher's checkpoint, in half precision, after a SHA-256 of these and of the
teacher's weights, so that features of other weights are never used. The file is memory-mapped, so it takes no memory.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.artifacts.checkpoint import DIGEST_BYTES, checkpoint_folder, checkpoint_path, fingerprint
from pipeline.lm.errors import TrainingError
from pipeline.lm.settings import Settings
from pipeline.project.files import MODELS, atomic_write, project_root

if TYPE_CHECKING:  # torch takes seconds to import, and a history is found without it
    from torch import Tensor

    from pipeline.corpus.ids import Corpus
    from pipeline.lm.batching import Batches
    from pipeline.lm.model import LanguageModel

TEACHER = "_teacher"  # the prefix of teachers' checkpoints; no model in params.yaml can have this name
HALF = np.dtype("<f2")


def named_teachers(model: str, settings: Settings) -> list[tuple[str, Settings]]:
    """A model's teachers, each with the name under which it is trained."""
    return [(f"{model}_teacher_{number}", teacher) for number, teacher in enumerate(settings.teachers, start=1)]


def student_of(title: str) -> str | None:
    """The model whose teacher has this name; None if it is not a teacher's."""
    found = re.fullmatch(r"(.+)_teacher_\d+", title)
    return found[1] if found else None


def all_teachers(model: str, settings: Settings) -> Iterator[tuple[str, Settings]]:
    """A model's teachers and their teachers, each after its own."""
    for title, teacher in named_teachers(model, settings):
        yield from all_teachers(title, teacher)
        yield title, teacher


def teacher_history_path(model: str, title: str) -> Path:
    """The history of a model's teacher: `lstm/teacher_1.csv`."""
    return MODELS / model / f"{title.removeprefix(f'{model}_')}.csv"


def delete_former_teachers(model: str, settings: Settings) -> None:
    """Delete the histories of teachers that a model no longer has."""
    own = {teacher_history_path(model, title) for title, _ in all_teachers(model, settings)}
    for path in set((MODELS / model).glob("teacher_*.csv")) - own:
        path.unlink(missing_ok=True)


def features_path(checkpoint: Path, text: "Batches") -> Path:
    """The file with the features that the teacher of this checkpoint has of this process's columns of a text."""
    from pipeline.lm.distributed import rank, world_size

    share = "" if world_size() == 1 else f"-{rank()}of{world_size()}"
    return checkpoint.with_suffix(f".{text.batch_size}{share}.features")


def check_disk_space(settings: Settings, corpus: "Corpus") -> None:
    """Raise TrainingError if the features that a model's teachers have not computed yet do not fit on the disk."""
    from pipeline.lm.training import train_layout
    from pipeline.project.memory import as_size

    text = train_layout(corpus.train, settings)
    needed = 0
    for teacher in settings.teachers:
        path = features_path(checkpoint_path(TEACHER, fingerprint(teacher, corpus.fingerprint)), text)
        if not path.exists():
            needed += text.time * text.batch_size * teacher.hidden_size * HALF.itemsize
    free = shutil.disk_usage(project_root()).free
    if needed > free:
        raise TrainingError(
            f"the features of its teachers take {as_size(needed)} in {checkpoint_folder()}, where {as_size(free)} are"
            " free: free some space"
        )


def cached_features(
    checkpoint: Path,
    teacher: "LanguageModel",
    precision: str,
    text: "Batches",
    on_window: Callable[[], object] = lambda: None,
) -> "Tensor":
    """A teacher's features of this process's columns of a text [time, columns, hidden], float16, mapped from disk.

    The teacher reads the text if there is no complete file of these weights' features yet. Raises OSError.
    """
    import torch

    path = features_path(checkpoint, text)
    shape = (text.time, text.columns, teacher.output.in_features)
    if not _is_complete(path, shape, teacher):
        _delete_orphans()
        _write(path, teacher, precision, text, on_window)
    return torch.from_numpy(np.memmap(path, HALF, "c", DIGEST_BYTES, shape))  # "c": like "r", without PyTorch's warning


def _write(
    path: Path, teacher: "LanguageModel", precision: str, text: "Batches", on_window: Callable[[], object]
) -> None:
    from pipeline.lm.distillation import read

    digest = _digest_of_weights(teacher)
    with atomic_write(path, "wb") as file:
        file.write(bytes(DIGEST_BYTES))
        for features in read(teacher, text, precision):
            part = features.cpu().numpy().astype(HALF).tobytes()
            digest.update(part)
            file.write(part)
            on_window()
        file.seek(0)
        file.write(digest.digest())


def _is_complete(path: Path, shape: tuple[int, ...], teacher: "LanguageModel") -> bool:
    """Whether a file holds all features of these weights."""
    if not path.exists() or path.stat().st_size != DIGEST_BYTES + HALF.itemsize * int(np.prod(shape)):
        return False
    digest = _digest_of_weights(teacher)
    with open(path, "rb") as file:
        wanted = file.read(DIGEST_BYTES)
        while part := file.read(2**22):
            digest.update(part)
    return digest.digest() == wanted


def _digest_of_weights(teacher: "LanguageModel") -> "hashlib._Hash":
    digest = hashlib.sha256()
    for name, weight in sorted(teacher.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.cpu().contiguous().numpy().tobytes())
    return digest


def _delete_orphans() -> None:
    """Delete features whose teacher's checkpoint is gone."""
    for path in checkpoint_folder().glob("*.features"):
        if not path.with_name(f"{path.name.split('.')[0]}.pt").exists():
            path.unlink(missing_ok=True)
