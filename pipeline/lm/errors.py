"""What keeps a training run from starting or going on. Each text says why, and how to mend it."""


class TrainingError(Exception):
    """A training run cannot start or go on."""


class DeviceError(TrainingError):
    """The device asked for is not there, or lacks what is asked of it."""


class SharesError(TrainingError):
    """The processes cannot share the batch evenly."""


class DivergedError(TrainingError):
    """The loss became infinite or not a number."""


class OutOfMemoryError(TrainingError):
    """A training run takes more memory than there is."""
