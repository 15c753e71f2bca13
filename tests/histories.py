"""Histories for tests, made of the numbers that a test is about."""

from collections.abc import Sequence

from pipeline.lm.record import EpochRecord


def history(valid: Sequence[float], train: Sequence[float] | None = None, rate: float = 1.0) -> list[EpochRecord]:
    """One epoch for each validation perplexity; training perplexity falls by one an epoch unless it is given."""
    train = train or [400.0 - epoch for epoch in range(len(valid))]
    return [
        EpochRecord(
            epoch=epoch,
            learning_rate=rate / epoch,
            train_perplexity=train_perplexity,
            valid_perplexity=valid_perplexity,
            grad_norm=1.5,
            tokens_per_second=20_000.0,
            seconds=60.25,
            finished_at=f"2026-01-31T12:{epoch % 60:02d}:00Z",
        )
        for epoch, (train_perplexity, valid_perplexity) in enumerate(zip(train, valid, strict=True), start=1)
    ]
