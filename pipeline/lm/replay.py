"""Training steps on windows of full length are recorded once and replayed, on devices that gain from it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.lm.batching import Batches
from pipeline.lm.errors import DeviceError
from pipeline.lm.graph import Recorder
from pipeline.lm.model import State, map_state, state_tensors
from pipeline.lm.step import Step

TakeStep = Callable[[Tensor, Tensor, Tensor, State | None], Step]  # inputs, targets, scale, state: as `train_step`

WARM_UP = 3  # steps before one is recorded, in which libraries do their set-up and the optimizer makes its buffers


class ReplayedSteps:
    """Takes steps: on windows of full length by replaying a recorded step, on all others by running them.

    The others are shorter windows and the first one, which has no previous state. A new one is made for every epoch,
    since weights and optimizer may have been loaded. A resumed epoch replays the same windows as an uninterrupted one
    would have (`rehearse`), so it ends with the same weights, to the bit.
    """

    def __init__(self, step: TakeStep, bptt: int, recorder: Recorder | None) -> None:
        """recorder: None if nothing is to be recorded."""
        self.step = step
        self.bptt = bptt
        self.recorder = recorder
        self.recording: Recording | None = None
        self.warm_up = WARM_UP

    def __call__(self, inputs: Tensor, targets: Tensor, scale: Tensor, state: State | None) -> Step:
        """As `train_step`. The next step overwrites the results of a replayed one. Raises DeviceError."""
        if self.recorder is None or state is None or len(inputs) != self.bptt:
            return self.step(inputs, targets, scale, state)
        if self.warm_up:
            self.warm_up -= 1
            return self.step(inputs, targets, scale, state)
        if self.recording is None:
            try:
                self.recording = Recording(self.step, self.recorder, inputs, targets, scale, state)
            except RuntimeError as error:
                reason = str(error).strip().partition("\n")[0]
                raise DeviceError(f"a training step cannot be recorded ({reason}): set cuda_graph: off") from error
        return self.recording(inputs, targets, scale, state)

    def rehearse(self, windows: Batches, taken: int, changed: Sequence[Tensor]) -> None:
        """Repeat the first of the steps already taken in an epoch, so that they warm up and record as they did.

        changed: the tensors that steps change; their values are restored afterwards
        """
        if self.recorder is None:
            return
        kept, state = [tensor.detach().clone() for tensor in changed], None
        scale = torch.ones((), device=windows.device)
        for step in range(min(taken, 1 + WARM_UP + 1)):
            inputs, targets, _ = windows[step]
            state = self(inputs, targets, scale, state).state
        with torch.no_grad():
            for tensor, value in zip(changed, kept, strict=True):
                tensor.copy_(value)


class Recording:
    """A recorded step and the tensors it reads: inputs, targets, scale, and the state, which it updates."""

    def __init__(
        self, step: TakeStep, recorder: Recorder, inputs: Tensor, targets: Tensor, scale: Tensor, state: State
    ) -> None:
        self.window = inputs.clone(), targets.clone(), scale.clone()
        self.state = map_state(Tensor.clone, state)

        def step_and_carry() -> Step:
            loss, grad_norm, after = step(*self.window, self.state)
            copy_state(self.state, after)
            return Step(loss, grad_norm, self.state)

        self.replay = recorder.record(step_and_carry)

    def __call__(self, inputs: Tensor, targets: Tensor, scale: Tensor, state: State) -> Step:
        for own, given in zip(self.window, (inputs, targets, scale), strict=True):
            own.copy_(given)
        if state is not self.state:
            copy_state(self.state, state)
        return self.replay()


def copy_state(to: State, values: State) -> None:
    """Copy a state's values into another's tensors."""
    for own, given in zip(state_tensors(to), state_tensors(values), strict=True):
        own.copy_(given)
