"""CUDA graphs: the launches of a function are recorded once; from then on one call makes the GPU repeat them all."""

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

import torch

T = TypeVar("T")


class Recorder(Protocol):
    """Records a function that reads and writes the same tensors at every call."""

    def aside(self) -> AbstractContextManager[None]:
        """A context in which the function has to run a few times before it is recorded."""

    def record(self, function: Callable[[], T]) -> Callable[[], T]:
        """The function as recorded: each call leaves its results in the same tensors. Recording itself runs nothing."""


class CudaGraphs:
    """See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.

    Random numbers advance from replay to replay, and `torch.manual_seed` in between takes effect: PyTorch passes the
    generator's seed and offset to each replay. Python numbers keep the values they had when it was recorded.
    """

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()

    @contextmanager
    def aside(self) -> Any:
        """On the stream that will be recorded, so that libraries do their set-up there beforehand."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield
        torch.cuda.current_stream().wait_stream(self.stream)

    def record(self, function: Callable[[], T]) -> Callable[[], T]:
        """Raises RuntimeError for what CUDA cannot record, such as copying a number to the host."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            results = function()

        def replay() -> T:
            graph.replay()
            return results

        return replay
