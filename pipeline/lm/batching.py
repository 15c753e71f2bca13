"""One long text as parallel columns, cut into windows for truncated back-propagation through time."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.lm.distributed import rank, world_size

IGNORED = -100  # the target of a padded place; `F.cross_entropy` leaves it out

# The type of the same bits that PyTorch indexes on every device.
SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32}


def as_int64(tokens: Tensor, places: Tensor | slice = slice(None)) -> Tensor:
    """The ids at some places of a text of any integer type, without a copy of the rest."""
    ids = tokens.view(SIGNED.get(tokens.dtype, tokens.dtype))[places].to(torch.int64)
    return ids & torch.iinfo(tokens.dtype).max  # what is negative when signed is itself again


class Window(NamedTuple):
    """inputs, targets [time, batch] int64; num_tokens counts the targets that are not padding, in all columns."""

    inputs: Tensor
    targets: Tensor
    num_tokens: int


class Batches:
    """A text laid out in `batch_size` columns that are read side by side, each continuing its own past.

    With the alphabet a to n as the text and two columns, every letter after the first is a target exactly once::

        inputs   a h      targets   b i
                 b i                c j
                 c j                d k
                 d k                e l
                 e l                f m
                 f m                g n
                 g .                h .      <- padding, ignored by the loss

    A sequence of windows of at most `bptt` steps; the last one is shorter. Each window is made on demand, and the text
    stays as it is: on disk, with 16 bits per token, if it is memory-mapped. Processes that share a training run have
    some of the columns each; tokens are counted in all of them.
    """

    def __init__(self, tokens: Tensor, batch_size: int, bptt: int, first: int | None = None) -> None:
        """tokens [length] of any integer type, at least two of them; first: steps of the first window, None for bptt.

        A process among more than there are columns may have none.
        """
        assert len(tokens) >= 2  # one to read and one to predict
        self.tokens = tokens
        self.batch_size = batch_size
        self.bptt = bptt
        self.first = first or bptt
        self.num_tokens = len(tokens) - 1
        self.time = -(-self.num_tokens // batch_size)  # steps of all windows together
        steps = torch.arange(min(bptt, self.time) + 1, device=tokens.device)
        columns = torch.arange(batch_size, device=tokens.device).tensor_split(world_size())[rank()] * self.time
        self._places = steps[:, None] + columns  # in the text, of a first window and of the targets of its last step
        self._last_column = int(columns[-1]) if len(columns) else 0

    @property
    def columns(self) -> int:
        """How many of the columns are this process's."""
        return self._places.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the text is, and where the windows are made."""
        return self.tokens.device

    def cut_at(self, first: int) -> "Batches":
        """The same columns with a first window of `first` steps, so that they are cut elsewhere."""
        return Batches(self.tokens, self.batch_size, self.bptt, first)

    def __len__(self) -> int:
        """The number of windows."""
        return 1 + max(0, -(-(self.time - self.first) // self.bptt))

    def __iter__(self) -> Iterator[Window]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> Window:
        """The window with that number, counted from 0."""
        start, end = self.steps(number)
        places = self._places[: end - start + 1] + start
        padded = self._last_column + end > self.num_tokens
        if padded:
            padding = places[:-1] >= self.num_tokens
            places.clamp_(max=self.num_tokens)
        ids = as_int64(self.tokens, places)
        inputs, targets = ids[:-1], ids[1:]
        if padded:
            inputs, targets = inputs.masked_fill(padding, 0), targets.masked_fill(padding, IGNORED)
        full_columns, rest = divmod(self.num_tokens, self.time)
        num_tokens = full_columns * (end - start) + min(max(rest - start, 0), end - start)
        return Window(inputs, targets, num_tokens)

    def steps(self, number: int) -> tuple[int, int]:
        """The steps at which a window starts and ends, of all those of the columns."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        end = self.first + number * self.bptt
        return max(0, end - self.bptt), min(end, self.time)
