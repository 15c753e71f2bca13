"""Several processes that share a training run: each has some of the batch's columns, and all make the same update.

The processes are those of the default group of `torch.distributed`. A single process has rank 0 of 1.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.lm.errors import SharesError


def rank() -> int:
    """The number of this process, counted from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes share the training run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def check_shares(batch_size: int, processes: int | None = None) -> None:
    """Raise SharesError if that many processes cannot share a batch evenly; None: the world size."""
    processes = processes or world_size()
    if batch_size % processes:
        raise SharesError(processes, batch_size)


def own_columns(x: Tensor) -> Tensor:
    """This process's columns of the whole batch: x [time, batch, ...] -> [time, batch / world_size, ...].

    Raises SharesError if the batch cannot be shared evenly.
    """
    check_shares(x.shape[1])
    return x.chunk(world_size(), dim=1)[rank()]


def all_columns(x: Tensor) -> Tensor:
    """The whole batch, of what each process has: x [time, batch / world_size, ...] -> [time, batch, ...]."""
    if world_size() == 1:
        return x
    shares = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(shares, x.contiguous())
    return torch.cat(shares, dim=1)


def in_any_process(wanted: bool) -> bool:
    """Whether it is wanted in any of the processes, all of which have to ask."""
    return bool(total(torch.tensor(int(wanted))))


def total(x: Tensor) -> Tensor:
    """The sum over all processes, equal in each to the bit; `x` itself if there is only one."""
    if world_size() > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


def data_parallel(model: nn.Module) -> nn.Module:
    """The model with gradients averaged over the processes in `backward`, all starting from the weights of rank 0."""
    if world_size() == 1:
        return model
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    return DistributedDataParallel(model, device_ids=list(devices) or None, gradient_as_bucket_view=True)
