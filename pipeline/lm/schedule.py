"""Learning-rate schedules: pure functions of the progress of training."""

import math

from pipeline.lm.settings import Decay, Settings


def learning_rate(settings: Settings, epochs_done: float) -> float:
    """The rate of the next step after a (fractional) number of epochs: 1.5 is in the middle of epoch 2."""
    schedule = settings.schedule
    if isinstance(schedule, Decay):
        return settings.learning_rate * schedule.decay ** max(0, math.floor(epochs_done) + 1 - schedule.constant_epochs)
    done = epochs_done / settings.epochs
    if done < schedule.warmup:
        return settings.learning_rate * done / schedule.warmup
    return settings.learning_rate * (1 - (done - schedule.warmup) / (1 - schedule.warmup))
