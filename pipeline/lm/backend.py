"""What a CPU and a GPU compute in different ways, with the same result.

A CPU gains from data that stays in its cache; a GPU gains from few operations, because launching one costs more than
what it computes. This table is the only place that chooses by device. The GPU's side is plain PyTorch, so the tests can
run it on a CPU, compare the two, and count the launches.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.lm.dropout import Mask, draw_masks, draw_masks_in_turn, dropped_weights, dropped_weights_in_one_piece
from pipeline.lm.graph import CudaGraphs, Recorder
from pipeline.lm.gru import gru_written_out
from pipeline.lm.loss import SoftTargets, linear_cross_entropy, linear_cross_entropy_by_rows
from pipeline.lm.update import clip_in_update, clip_then_update, set_rate, set_rate_on_device


class Backend(NamedTuple):
    """linear_cross_entropy: features [tokens, hidden], weight, bias, targets [tokens], perhaps soft ones -> summed loss
    gru: layer, x [time, batch, input], state -> h [time, batch, hidden], state
    draw_masks: the masks of a window, in the order in which they are used
    drop_weights: layer, masks of its recurrent weights by name -> weights by name
    set_rate: sets an optimizer's learning rate
    clip_and_update: optimizer, largest norm -> the gradient's norm before clipping
    recorder: makes a recorder of steps for replay; None where replaying gains nothing
    """

    linear_cross_entropy: Callable[[Tensor, Tensor, Tensor, Tensor, SoftTargets | None], Tensor]
    gru: Callable[[nn.GRU, Tensor, Tensor | None], tuple[Tensor, Tensor]]
    draw_masks: Callable[[Sequence[Mask], torch.device], list[Tensor]]
    drop_weights: Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]]
    set_rate: Callable[[torch.optim.Optimizer, float], None]
    clip_and_update: Callable[[torch.optim.Optimizer, float | None], Tensor]
    recorder: Callable[[], Recorder] | None


CPU = Backend(
    linear_cross_entropy=linear_cross_entropy_by_rows,
    gru=gru_written_out,
    draw_masks=draw_masks_in_turn,
    drop_weights=dropped_weights,
    set_rate=set_rate,
    clip_and_update=clip_then_update,
    recorder=None,
)
GPU = Backend(
    linear_cross_entropy=linear_cross_entropy,
    gru=nn.GRU.forward,
    draw_masks=draw_masks,
    drop_weights=dropped_weights_in_one_piece,
    set_rate=set_rate_on_device,
    clip_and_update=clip_in_update,
    recorder=CudaGraphs,
)
BACKENDS = {"cpu": CPU, "cuda": GPU}


def backend(device: torch.device) -> Backend:
    """The implementations for a device."""
    return BACKENDS[device.type]
