"""The least memory that a training run needs, checked before anything is built.

A machine that overcommits memory would start a run that does not fit, and kill it later.
"""

import os
from contextlib import suppress
from pathlib import Path

import torch

from pipeline.lm.device import choose_device
from pipeline.lm.errors import TrainingError
from pipeline.lm.model import LanguageModel, num_parameters
from pipeline.lm.settings import AdamW, Settings

FLOAT_BYTES = 4
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class OutOfMemoryError(TrainingError):
    """A training run needs more memory than there is. Its text says how much, and what to lower."""


def check_fits(settings: Settings, train_tokens: int, vocabulary_size: int) -> None:
    """Raise OutOfMemoryError, with the size needed, if a training run cannot fit into this machine.

    Raises TrainingError if a batch has more columns than there are tokens to fill them.
    """
    if settings.batch_size >= train_tokens:
        raise TrainingError(f"batch_size is {settings.batch_size:,}, and train has {train_tokens:,} tokens: lower it")
    weights = bytes_of_weights(settings, vocabulary_size)
    window = bytes_of_window(settings, train_tokens, vocabulary_size)
    available = available_bytes(choose_device(settings.device))
    if weights + window > available:
        raise OutOfMemoryError(
            f"training takes {as_size(weights + window)} of memory or more, {as_size(weights)} for the weights and"
            f" {as_size(window)} for a window's activations, and there are {as_size(available)} here: lower"
            f" {'hidden_size, embedding_size or num_layers' if weights > window else 'batch_size or bptt'}"
        )


def num_weights(settings: Settings, vocabulary_size: int) -> int:
    """The number of parameters, counted on a model without memory (the device `meta`)."""
    with torch.device("meta"):
        return num_parameters(LanguageModel(settings, vocabulary_size))


def bytes_of_weights(settings: Settings, vocabulary_size: int) -> int:
    """Weights, gradients, the best weights so far, the optimizer's state; the softmax layers of teachers."""
    optimizer = 2 if isinstance(settings.optimizer, AdamW) else bool(settings.optimizer.momentum)
    of_teachers = sum(teacher.hidden_size for teacher in settings.teachers) * vocabulary_size
    return ((3 + optimizer) * num_weights(settings, vocabulary_size) + of_teachers) * FLOAT_BYTES


def bytes_of_window(settings: Settings, train_tokens: int, vocabulary_size: int) -> int:
    """A window's activations in training, with the logits of all its tokens."""
    steps = min(settings.bptt, -(-train_tokens // settings.batch_size))
    numbers = settings.embedding_size + settings.num_layers * settings.hidden_size + vocabulary_size
    return steps * settings.batch_size * numbers * FLOAT_BYTES


def available_bytes(device: torch.device) -> int:
    """The memory of a device; for the CPU, no more than the container allows."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in map(Path, CONTAINER_LIMITS):
        with suppress(OSError, ValueError):  # missing, or `max`
            limits.append(int(file.read_text()))
    return min(limits)


def as_size(number: float) -> str:
    """Bytes in words: 2560000000 is 2.56 GB."""
    for unit in ("bytes", "kB", "MB", "GB", "TB", "PB"):
        if number < 1000 or unit == "PB":
            break
        number /= 1000
    return f"{number:.3g} {unit}" if number < 1000 else f"{number:,.0f} {unit}"
