"""One epoch of training, as the history, the report and MLflow show it."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.lm.settings import Settings


@dataclass(frozen=True)
class EpochRecord:
    """One epoch. All numbers are finite.

    epoch: counted from 1
    learning_rate: the optimizer's rate in the middle of this epoch
    train_perplexity: over the training tokens, measured while training: with dropout, before each update
    valid_perplexity: over the validation tokens, after the epoch
    grad_norm: mean over the updates of the gradient's L2 norm, before clipping
    tokens_per_second: training tokens per second, excluding validation
    seconds: of the whole epoch, including validation
    finished_at: ISO 8601 in UTC, to the second, such as 2026-01-31T12:00:00Z
    """

    epoch: int
    learning_rate: float
    train_perplexity: float
    valid_perplexity: float
    grad_norm: float
    tokens_per_second: float
    seconds: float
    finished_at: str


def is_whole(history: Sequence[EpochRecord], settings: Settings) -> bool:
    """Whether these are all the epochs of a training run.

    That is as many as the settings ask for, or fewer if the last `patience` of them did not lower the validation
    perplexity.
    """
    perplexities = [record.valid_perplexity for record in history]
    if not perplexities or len(perplexities) >= settings.epochs:
        return len(perplexities) == settings.epochs
    return len(perplexities) - 1 - perplexities.index(min(perplexities)) == settings.patience
