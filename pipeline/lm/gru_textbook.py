"""The GRU of Cho et al. (2014), arXiv:1406.1078v3, section 2.3: the reset gate before the recurrent product."""

import torch
from torch import Tensor, nn


class TextbookGRU(nn.Module):
    """One layer of the textbook cell, called like `nn.GRU`::

        z = sigmoid(Wxz x + Whz h' + bz)
        r = sigmoid(Wxr x + Whr h' + br)
        g = tanh(Wxg x + Whg (r * h') + bg)       nn.GRU: tanh(Wxg x + bg + r * (Whg h' + cg))
        h = z * h' + (1 - z) * g

    The weights of `inputs` are in the order z, r, g, those of `gates` in the order z, r. It is a Python loop over time,
    differentiated by autograd; docs/theory.md, section 5, says what that costs.
    """

    recurrent_weights = ("gates.weight", "candidate.weight")

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.inputs = nn.Linear(input_size, 3 * hidden_size)  # Wxz, Wxr, Wxg and bz, br, bg
        self.gates = nn.Linear(hidden_size, 2 * hidden_size, bias=False)  # Whz, Whr
        self.candidate = nn.Linear(hidden_size, hidden_size, bias=False)  # Whg

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [time, batch, input], state [1, batch, hidden] or None for zeros -> h [time, batch, hidden], state."""
        h = x.new_zeros(x.shape[1], self.hidden_size) if state is None else state[0]
        gates, candidates = self.inputs(x).split([2 * self.hidden_size, self.hidden_size], dim=-1)  # for all times
        outputs = []
        for gate, candidate in zip(gates.unbind(), candidates.unbind(), strict=True):
            z, r = torch.sigmoid(gate + self.gates(h)).chunk(2, dim=-1)
            g = torch.tanh(candidate + self.candidate(r * h))
            h = z * h + (1 - z) * g
            outputs.append(h)
        return torch.stack(outputs), h.unsqueeze(0)
