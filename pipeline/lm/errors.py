"""What keeps a training run from starting or continuing. These carry facts; `project.faults` puts them into words."""


class TrainingError(Exception):
    """A training run cannot start or continue."""


class DeviceError(TrainingError):
    """The requested device is missing, or does not support what is requested of it."""


class NoCudaError(DeviceError):
    """CUDA is requested, and PyTorch finds none."""


class TooFewGpusError(DeviceError):
    """There are more processes than GPUs. Argument: the number of GPUs."""


class NoTF32Error(DeviceError):
    """TF32 is requested, and the device does not multiply it."""


class NoBfloat16Error(DeviceError):
    """bfloat16 is requested, and the processor lacks the instructions for it."""


class NotRecordableError(DeviceError):
    """A training step cannot be recorded for replay. Argument: the device's reason."""


class SharesError(TrainingError):
    """Processes cannot share a batch evenly. Arguments: the number of processes, the batch size."""


class DivergedError(TrainingError):
    """The loss became infinite or not a number. Arguments: the loss, the step and the epoch, counted from 1."""


class OverflowedError(DivergedError):
    """The perplexity or the gradient of a whole epoch is infinite. Argument: the epoch, counted from 1."""
