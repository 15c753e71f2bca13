"""A recorder of operations on a CPU that behaves as CUDA's graphs do."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")


class Operations(TorchDispatchMode):
    """Keeps every operation with the tensors that it read and wrote; Python numbers are what they were."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[OpOverload, Any, dict, Any]] = []

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **kwargs or {})
        if not func.is_view:  # a view shows what its tensor holds by then
            self.kept.append((func, args, kwargs or {}, results))
        return results

    def replay(self) -> None:
        """All of them again, on the same tensors, with the results in the same memory."""
        with torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, results in self.kept:
                for old, new in zip(tree_leaves(results), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, Tensor) and old is not new:
                        old.copy_(new)


class RecordedOnCPU:
    """Records as `pipeline.lm.graph.CudaGraphs` does. What recording runs, as it has to here, it takes back.

    changed: gives the tensors that a run changes, to be taken back
    """

    def __init__(self, changed: Callable[[], list[Tensor]]) -> None:
        self.changed = changed
        self.recorded = self.replayed = 0

    def record(self, function: Callable[[], T]) -> Callable[[], T]:
        tensors, random_numbers = self.changed(), torch.get_rng_state()
        before = [tensor.detach().clone() for tensor in tensors]
        operations = Operations()
        with operations:
            results = function()
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
        torch.set_rng_state(random_numbers)
        self.recorded += 1

        def replay() -> T:
            self.replayed += 1
            operations.replay()
            return results

        return replay


class CannotRecord(RecordedOnCPU):
    """As where CUDA refuses."""

    def record(self, function: Callable[[], T]) -> Callable[[], T]:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")
