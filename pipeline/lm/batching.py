"""One long text as parallel columns, cut into windows for truncated back-propagation through time."""

from collections.abc import Iterator
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from pipeline.lm.distributed import own_columns

IGNORED = -100  # the target of a padded place; `F.cross_entropy` leaves it out


class Window(NamedTuple):
    """inputs, targets [time, batch]; num_tokens counts the targets that are not padding, in all columns."""

    inputs: Tensor
    targets: Tensor
    num_tokens: int


class Batches:
    """A text laid out in `batch_size` columns that are read side by side, each the continuation of its own past.

    With the alphabet a to n as the text and two columns, every letter after the first is a target exactly once::

        inputs   a h      targets   b i
                 b i                c j
                 c j                d k
                 d k                e l
                 e l                f m
                 f m                g n
                 g .                h .      <- padding, ignored by the loss

    inputs, targets [time, batch] int64. Iterating yields windows of at most `bptt` steps, the last one shorter.
    Of processes that share a training, each has its columns; tokens are counted in all of them.
    """

    def __init__(self, tokens: Tensor, batch_size: int, bptt: int) -> None:
        """tokens [length] int64, at least two of them.

        Raises ValueError when there are fewer, and SharesError when the processes cannot share the columns evenly.
        """
        if len(tokens) < 2:
            raise ValueError("a text needs at least two tokens: one to read and one to predict")
        self.batch_size = batch_size
        self.bptt = bptt
        targets = batchify(tokens[1:], batch_size, padding=IGNORED)
        self.inputs = own_columns(batchify(tokens[:-1], batch_size, padding=0))
        self.targets = own_columns(targets)
        self.num_tokens = len(tokens) - 1
        self._row_tokens = (targets != IGNORED).sum(dim=1).tolist()

    def __len__(self) -> int:
        """The number of windows."""
        return -(-len(self.inputs) // self.bptt)

    def __iter__(self) -> Iterator[Window]:
        return self.windows(self.bptt)

    def windows(self, first: int) -> Iterator[Window]:
        """As iterating, the first window having `first` steps, so that the cuts fall elsewhere."""
        starts = [0, *range(first, len(self.inputs), self.bptt)]
        for start, end in zip(starts, [*starts[1:], len(self.inputs)], strict=True):
            yield Window(self.inputs[start:end], self.targets[start:end], sum(self._row_tokens[start:end]))


def batchify(tokens: Tensor, batch_size: int, padding: int) -> Tensor:
    """Lay a text out as columns: tokens [length] -> [time, batch], the end filled up with `padding`."""
    time = -(-len(tokens) // batch_size)
    padded = F.pad(tokens, (0, time * batch_size - len(tokens)), value=padding)
    return padded.view(batch_size, time).t().contiguous()
