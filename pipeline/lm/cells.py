"""The recurrent layers to choose from. Each is called like `nn.LSTM`; the model stacks them.

`recurrent_weights` names the parameters that multiply the state, which `weight_dropout` drops.
"""

from torch import Tensor, nn

from pipeline.lm.backend import backend
from pipeline.lm.gru_textbook import TextbookGRU


class LSTM(nn.LSTM):
    """One layer of `nn.LSTM`."""

    recurrent_weights = ("weight_hh_l0",)


class GRU(nn.GRU):
    """One layer of `nn.GRU`, with the same parameters and results, computed in the way that suits the device."""

    recurrent_weights = ("weight_hh_l0",)

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """x [time, batch, input], state [1, batch, hidden] or None for zeros -> h [time, batch, hidden], state."""
        return backend(x.device).gru(self, x, state)


CELLS: dict[str, type[LSTM] | type[GRU] | type[TextbookGRU]] = {"lstm": LSTM, "gru": GRU, "gru_textbook": TextbookGRU}
