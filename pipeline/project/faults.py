"""What keeps a training run from starting or continuing, in words: why, and how to fix it.

The language model itself (`pipeline/lm`) raises errors without words, so that rewording a message retrains nothing.
"""

from pipeline.lm import errors

_DIVERGED = "lower learning_rate or max_grad_norm"

# By the error's class; {0}, {1} and so on are its arguments.
_WORDS: dict[type[BaseException], str] = {
    errors.NoCudaError: "device is cuda, but PyTorch finds no CUDA here; set device: auto or cpu",
    errors.TooFewGpusError: "there are more processes than GPUs, of which this machine has {0}: set device: cpu",
    errors.NoTF32Error: "precision is tf32, which NVIDIA's GPUs have from Ampere on: set precision: auto or float32",
    errors.NoBfloat16Error: "precision is bfloat16, but this processor lacks the instructions for it (on x86: "
    "AVX-512); set precision: auto or float32",
    errors.NotRecordableError: "a training step cannot be recorded ({0}): set cuda_graph: off",
    errors.SharesError: "{0} processes cannot share a batch_size of {1} evenly: set processes to one of {divisors}, "
    "or another batch_size",
    errors.DivergedError: f"the loss is {{0}} at step {{1}} of epoch {{2}}: {_DIVERGED}",
    errors.OverflowedError: f"the perplexity or the gradient overflows in epoch {{0}}: {_DIVERGED}",
}


def explain(error: BaseException) -> str:
    """One line: why, and how to fix it. Other errors already have a text."""
    words = _WORDS.get(type(error))
    if words is None:
        return str(error)
    divisors = ""
    if isinstance(error, errors.SharesError):
        batch_size = error.args[1]
        divisors = ", ".join(str(n) for n in range(1, batch_size + 1) if batch_size % n == 0)
    return words.format(*error.args, divisors=divisors)
