"""Training steps on windows of full length are recorded once and replayed, on devices that gain from it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.lm.errors import NotRecordableError
from pipeline.lm.graph import Recorder
from pipeline.lm.model import State, map_state, state_tensors
from pipeline.lm.step import Given, Step

TakeStep = Callable[[Given, State | None], Step]

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

    def __call__(self, given: Given, state: State | None) -> Step:
        """The next step overwrites the results of a replayed one. Raises NotRecordableError."""
        if self.recorder is None or state is None or len(given.inputs) != self.bptt:
            return self.step(given, state)
        if self.warm_up:
            self.warm_up -= 1
            return self.step(given, state)
        if self.recording is None:
            try:
                self.recording = Recording(self.step, self.recorder, given, state)
            except RuntimeError as error:
                raise NotRecordableError(str(error).strip().partition("\n")[0]) from error
        return self.recording(given, state)

    def rehearse(self, given: Callable[[int], Given], taken: int, changed: Sequence[Tensor]) -> None:
        """Repeat the first of the steps already taken in an epoch, so that they warm up and record as they did.

        given: of each step by its number; changed: the tensors that steps change, whose values are restored afterwards
        """
        if self.recorder is None:
            return
        kept, state = [tensor.detach().clone() for tensor in changed], None
        for step in range(min(taken, 1 + WARM_UP + 1)):
            state = self(given(step), state).state
        with torch.no_grad():
            for tensor, value in zip(changed, kept, strict=True):
                tensor.copy_(value)


class Recording:
    """A recorded step and the tensors it reads: what it is given, and the state, which it updates."""

    def __init__(self, step: TakeStep, recorder: Recorder, given: Given, state: State) -> None:
        soft = given.soft and given.soft._replace(features=given.soft.features.clone())
        self.given = Given(given.inputs.clone(), given.targets.clone(), given.scale.clone(), soft)
        self.state = map_state(Tensor.clone, state)

        def step_and_carry() -> Step:
            loss, grad_norm, after = step(self.given, self.state)
            copy_state(self.state, after)
            return Step(loss, grad_norm, self.state)

        self.replay = recorder.record(step_and_carry)

    def __call__(self, given: Given, state: State) -> Step:
        for own, new in zip(self.given.tensors(), given.tensors(), strict=True):
            own.copy_(new)
        if state is not self.state:
            copy_state(self.state, state)
        return self.replay()


def copy_state(to: State, values: State) -> None:
    """Copy a state's values into another's tensors."""
    for own, given in zip(state_tensors(to), state_tensors(values), strict=True):
        own.copy_(given)
