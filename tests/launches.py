"""What a training step on a GPU would launch, seen on a CPU.

An operation counts when PyTorch dispatches it and it computes or copies something: all but views, allocations and
the profiler's marks. One that passes over many tensors at once, such as `_foreach_norm` or the fused optimizers, is
one, and so is a recurrent network by cuDNN, forward and backward one each, however many layers a call has: a stand-in
takes its place, for a CPU has no such operation. A GPU may make several kernels of one operation, in the plain loop as
in the product.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

LAUNCH_NOTHING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"} | {
    "_record_function_enter_new",
    "_record_function_exit",
}


class Launches(TorchDispatchMode):
    """Counts operations by name while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        if not func.is_view and name not in LAUNCH_NOTHING:
            self.counts[name] += 1
        return func(*args, **kwargs or {})


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU: results whose value or size the host has to know, and new numbers.

    A step has to pass on two devices. On a CPU numbers that are to be copied to the device are seen, on `meta` PyTorch
    itself refuses all that hands values to the host and is not dispatched on a CPU (`tolist`, `numpy`, `cpu`).
    """

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags)
        new_number = func is torch.ops.aten.lift_fresh.default  # made of Python's on the host, to be copied
        if waits or new_number:
            raise AssertionError(f"{func} makes the host wait for the device")
        return func(*args, **kwargs or {})


@torch.library.custom_op("stand_in::rnn", mutates_args=())
def rnn(x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """x [time, batch, input] -> outputs [time, batch, hidden], and a state like the one given."""
    return _like_an_rnn(x, state)


@torch.library.custom_op("stand_in::rnn_backward", mutates_args=())
def rnn_backward(x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], gradient: Tensor) -> list[Tensor]:
    """The gradients of x and of each weight."""
    return [torch.zeros_like(tensor) for tensor in (x, *weights)]


def _like_an_rnn(x: Tensor, state: Sequence[Tensor]) -> list[Tensor]:
    return [x.new_zeros(*x.shape[:2], state[0].shape[2]), *(torch.zeros_like(part) for part in state)]


rnn.register_fake(lambda x, state, weights: _like_an_rnn(x, state))
rnn_backward.register_fake(lambda x, state, weights, gradient: [torch.empty_like(t) for t in (x, *weights)])


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    x, state, weights = inputs
    ctx.set_materialize_grads(False)  # cuDNN's does without the gradient of a state that nobody uses
    ctx.count = len(state)
    ctx.save_for_backward(x, *state, *weights)


def _backward(ctx: Any, gradients: Sequence[Tensor]) -> Any:
    x, *others = ctx.saved_tensors
    state, weights = others[: ctx.count], others[ctx.count :]
    d_x, *d_weights = rnn_backward(x, state, weights, gradients[0])
    return d_x, [None] * len(state), d_weights


rnn.register_autograd(_backward, setup_context=_keep)


@contextmanager
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Recurrent networks are one operation each, and so is the plain loop's dropout."""

    def lstm(x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], *_: Any) -> tuple[Tensor, ...]:
        return tuple(rnn(x, list(state), list(weights)))

    def gru(x: Tensor, state: Tensor, weights: Sequence[Tensor], *_: Any) -> tuple[Tensor, ...]:
        return tuple(rnn(x, [state], list(weights)))

    with monkeypatch.context() as patched:
        patched.setattr(F, "dropout", lambda x, rate, *_: torch.native_dropout(x, rate, True)[0] if rate else x)
        patched.setattr(torch._VF, "lstm", lstm)
        patched.setattr(torch._VF, "gru", gru)
        yield


def launches(step: Callable[[], object]) -> Counter[str]:
    """What a step launches, once it has run twice: first steps make buffers."""
    step()
    step()
    with Launches() as counted:
        step()
    return counted.counts
