"""Learning-rate schedules: pure functions of the epoch."""

from pipeline.lm.settings import Settings


def learning_rate(settings: Settings, epoch: int) -> float:
    """The rate of an epoch, counted from 1: constant at first, then multiplied by `decay` every epoch."""
    schedule = settings.schedule
    return settings.learning_rate * schedule.decay ** max(0, epoch - schedule.constant_epochs)
