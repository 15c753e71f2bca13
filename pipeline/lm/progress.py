"""An epoch in progress: what is needed, besides weights and optimizer, to resume it with the same result to the bit."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from pipeline.lm.distributed import all_columns, own_columns, rank, total
from pipeline.lm.model import State, map_state


@dataclass
class EpochInProgress:
    """An epoch after some of its steps.

    results [2, windows]: for each step the loss in nats, summed over the targets in this process's columns, and the
    gradient's norm
    random: the states of the random generators when it began, or was saved
    tokens: the number of targets in these steps' windows, over all columns
    state: the state that the next window starts from
    seconds: the time spent on these steps
    """

    results: Tensor
    random: dict[str, Tensor]
    steps: int = 0
    tokens: int = 0
    state: State | None = None
    seconds: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The same for any number of processes that share the training run; all of them have to call it."""
        assert self.state is not None
        losses, grad_norms = self.results
        return {
            "results": torch.stack((total(losses), grad_norms)),
            "steps": self.steps,
            "tokens": self.tokens,
            "state": map_state(all_columns, self.state),
            "seconds": self.seconds,
            "random": random_state(self.results.device),
        }

    @classmethod
    def from_state_dict(cls, saved: dict[str, Any], device: torch.device) -> Self:
        """This process's share of what `state_dict` returned. Rank 0 gets all losses, since they are summed later."""
        results = saved["results"].to(device)
        if rank() > 0:
            results[0] = 0
        state = map_state(lambda part: own_columns(part).to(device).contiguous(), saved["state"])
        return cls(results, saved["random"], saved["steps"], saved["tokens"], state, saved["seconds"])

    def mean_loss(self) -> float:
        """In nats per token, of the steps taken; of a process among several, it is not known without the others."""
        return self.results[0].sum(dtype=torch.float64).item() / self.tokens


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of the random generators that training on this device uses."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(states: dict[str, Tensor], device: torch.device) -> None:
    """Restore what `random_state` returned; if it is from another kind of device, only the CPU's."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
