"""What a training run has chosen, in words: device, number of threads, precision."""

import torch

from pipeline.lm.device import chooses_tf32
from pipeline.lm.distributed import world_size
from pipeline.lm.settings import Settings


def device_name(device: torch.device) -> str:
    """A GPU with its memory, or the CPU with the threads in use."""
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'' if threads == 1 else 's'}"
    gpu = torch.cuda.get_device_properties(device)
    return f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"


def describe(settings: Settings, device: torch.device, precision: torch.dtype) -> str:
    """One line on what was chosen and why."""
    name = device_name(device)
    if world_size() > 1:
        name = f"{world_size()} processes, each on {name}"
    tf32 = chooses_tf32(settings.precision, device)
    why = ""
    if settings.precision == "auto":
        has = "multiplies" if tf32 or precision is torch.bfloat16 else "does not multiply"
        why = f" (auto: this processor {has} {'TF32' if device.type == 'cuda' else 'bfloat16'} in hardware)"
    return f"{name}; matrix products in {'TF32' if tf32 else str(precision).removeprefix('torch.')}{why}"
