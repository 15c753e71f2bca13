"""CUDA graphs: all launches of a function recorded once, then made by the GPU itself at one call."""

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

import torch

T = TypeVar("T")


class Recorder(Protocol):
    """What records a function that reads and writes the same tensors at every call."""

    def aside(self) -> AbstractContextManager[None]:
        """Where the function has to have run a few times before it is recorded."""

    def record(self, function: Callable[[], T]) -> Callable[[], T]:
        """The same function; each call leaves its results in the same tensors. Recording runs nothing."""


class CudaGraphs:
    """Recorded as https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs has it.

    Random numbers go on from replay to replay, and from whatever `torch.manual_seed` sets in between: PyTorch hands the
    generator's seed and place to each replay. Python numbers stay what they were when it was recorded.
    """

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()

    @contextmanager
    def aside(self) -> Any:
        """On the stream that is recorded, so that what libraries set up there is there already."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield
        torch.cuda.current_stream().wait_stream(self.stream)

    def record(self, function: Callable[[], T]) -> Callable[[], T]:
        """Raises RuntimeError for what CUDA cannot record, such as a look at a number on the host."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            results = function()

        def replay() -> T:
            graph.replay()
            return results

        return replay
