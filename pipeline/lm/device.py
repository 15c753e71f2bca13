"""Where a model runs and how precise its matrix products are."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.lm.errors import NoBfloat16Error, NoCudaError, NoTF32Error, TooFewGpusError


def set_up_process() -> None:
    """What every command that runs a model calls before it makes a tensor: reproducible on a GPU, fast on a CPU."""
    make_reproducible()
    use_huge_pages()
    keep_freed_memory()


def make_reproducible() -> None:
    """Make two runs on one GPU end with the same weights, and keep float32 exact unless `precision` says otherwise.

    With a workspace of fixed size cuBLAS sums in a fixed order; it reads the variable when it is first used.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    _round_float32_factors("ieee")


def use_huge_pages() -> None:
    """Make PyTorch ask Linux for pages of 2 MB instead of 4 kB, for tensors of that size and more.

    It reads the variable when it first allocates memory. Where a system has no such pages, nothing changes.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_freed_memory() -> None:
    """Make the C library keep freed memory instead of returning and requesting it again, page by page, in every step.

    Without this, a step on a CPU spends a sixth of its time in the kernel. GNU C library only; no effect elsewhere.
    """
    m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(m_arena_max, 1)  # backward runs in a thread of its own
    mallopt(m_mmap_max, 0)  # the logits of a large vocabulary exceed the highest m_mmap_threshold, 32 MiB
    mallopt(m_trim_threshold, 2**30)


def choose_device(wanted: str) -> torch.device:
    """`auto` is CUDA if available, else the CPU; processes that share a training run get a GPU each.

    Raises DeviceError when CUDA is requested and not available, or has fewer GPUs than there are processes.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise NoCudaError
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return torch.device("cpu")
    gpu, gpus = dist.get_node_local_rank(fallback_rank=0), torch.cuda.device_count()
    if gpu >= gpus:
        raise TooFewGpusError(gpus)
    return torch.device("cuda", gpu)


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """The type of the matrix products; `auto` is bfloat16 where a CPU multiplies it in hardware, float32 on a GPU.

    TF32 is float32 whose factors a GPU rounds as it multiplies: `chooses_tf32`. Raises DeviceError when bfloat16 or
    TF32 is requested and the device does not support it.
    """
    if wanted == "auto":
        return torch.bfloat16 if device.type == "cpu" and _multiplies_bfloat16() else torch.float32
    if wanted == "tf32" and not chooses_tf32(wanted, device):
        raise NoTF32Error
    if wanted == "bfloat16" and device.type == "cpu" and not trains_in_bfloat16():
        raise NoBfloat16Error
    return torch.bfloat16 if wanted == "bfloat16" else torch.float32


def chooses_tf32(wanted: str, device: torch.device) -> bool:
    """Whether the factors of float32 products are rounded to TF32; `auto` does so on a GPU that supports it.

    TF32 rounds less than bfloat16 and needs no conversions, each of which would be a launch.
    """
    if wanted not in ("auto", "tf32") or device.type != "cuda":
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def trains_in_bfloat16() -> bool:
    """Whether PyTorch can train an LSTM in bfloat16 on this processor, found out by trying.

    PyTorch can only be asked about single products, and those it supports everywhere, by way of float32 if need be.
    """
    lstm = nn.LSTM(1, 1, device="meta").to_empty(device="cpu")  # leaves the random generator alone
    try:
        with torch.autocast("cpu", torch.bfloat16):
            lstm(torch.zeros(1, 1, 1))[0].sum().backward()
    except RuntimeError:
        return False
    return True


def products_in(precision: torch.dtype, device: torch.device) -> AbstractContextManager:
    """A context in which matrix products are computed in `precision`; weights and all else stay float32."""
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, precision)


@contextmanager
def tf32_products(chosen: bool) -> Iterator[None]:
    """A context, for backward too, in which float32 products are made from factors rounded to TF32, if so chosen."""
    if chosen:
        _round_float32_factors("tf32")
    try:
        yield
    finally:
        if chosen:
            _round_float32_factors("ieee")


def _round_float32_factors(how: Literal["ieee", "tf32"]) -> None:
    torch.backends.cuda.matmul.fp32_precision = how
    torch.backends.cudnn.rnn.fp32_precision = how  # type: ignore[attr-defined]
    torch.backends.cudnn.conv.fp32_precision = how  # type: ignore[attr-defined]  # unused, but has to agree


def product_dtype(x: Tensor) -> torch.dtype:
    """The type of matrix products with `x`: autocast's inside `products_in`, else its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _multiplies_bfloat16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
