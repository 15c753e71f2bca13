"""CUDA graphs: the launches of a function are recorded once; from then on one call makes the GPU repeat them all."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")


class Recorder(Protocol):
    """Records a function that reads and writes the same tensors at every call."""

    def record(self, function: Callable[[], T]) -> Callable[[], T]:
        """The function as recorded: each call leaves its results in the same tensors. Recording itself runs nothing."""


class CudaGraphs:
    """See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.

    Random numbers advance from replay to replay, and `torch.manual_seed` in between takes effect: PyTorch passes the
    generator's seed and offset to each replay. Python numbers keep the values they had when it was recorded.

    CUDA cannot record its default stream, nor anything that another stream has a part in. PyTorch adds up the gradient
    of a weight on the stream that first used the weight for as long as any graph of that use is alive, and an LSTM
    whose weights are dropped keeps the last one. So the first recorder moves this process to another stream for good.
    """

    def __init__(self) -> None:
        if torch.cuda.current_stream() == torch.cuda.default_stream():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.default_stream())
            torch.cuda.set_stream(stream)

    def record(self, function: Callable[[], T]) -> Callable[[], T]:
        """Raises RuntimeError for what CUDA cannot record, such as copying a number to the host."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            results = function()

        def replay() -> T:
            graph.replay()
            return results

        return replay
