"""What is known of one epoch of training; the same record feeds the history, the report and the tracking."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """One epoch. All numbers are finite.

    epoch: counted from 1
    learning_rate: the optimizer's rate in the middle of this epoch
    train_perplexity: over the tokens of the epoch, as trained on: with dropout, before each update
    valid_perplexity: over the validation tokens, after the epoch
    grad_norm: mean over the updates of the gradient's L2 norm, before clipping
    tokens_per_second: training tokens a second, without the validation
    seconds: of the whole epoch, with the validation
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
