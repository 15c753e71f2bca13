"""What keeps a training run from starting or continuing. Each message says why, and what to do about it."""


class TrainingError(Exception):
    """A training run cannot start or continue."""


class DeviceError(TrainingError):
    """The requested device is missing, or does not support what is requested of it."""


class SharesError(TrainingError):
    """The processes cannot share the batch evenly."""


class DivergedError(TrainingError):
    """The loss became infinite or not a number."""


class OutOfMemoryError(TrainingError):
    """A training run needs more memory than there is."""
