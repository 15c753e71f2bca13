"""The recurrent language model of Zaremba, Sutskever and Vinyals (2014), arXiv:1409.2329."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.lm.dropout import Dropout, WeightDropout
from pipeline.lm.gru import GRU
from pipeline.lm.gru_textbook import TextbookGRU
from pipeline.lm.loss import linear_cross_entropy
from pipeline.lm.settings import Settings

CELLS = {"lstm": nn.LSTM, "gru": GRU, "gru_textbook": TextbookGRU}

LayerState = Tensor | tuple[Tensor, Tensor]  # hidden for the GRUs, (hidden, cell) for the LSTM
State = list[LayerState]


class LanguageModel(nn.Module):
    """Embedding, stacked recurrent layers, softmax layer; dropout on the non-recurrent connections only.

    That is, between embedding and first layer, between layers, and between last layer and softmax (Zaremba et al.,
    equation 7 and figure 2): the state carried through time is never dropped, though the weights that it is multiplied
    with may be (`weight_dropout`). Tied, embedding and softmax layer share their weights (Press and Wolf 2017,
    arXiv:1608.05859; Inan et al. 2017, arXiv:1611.01462).
    """

    def __init__(self, settings: Settings, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, settings.embedding_size)
        sizes = [settings.embedding_size] + [settings.hidden_size] * settings.num_layers
        self.layers = nn.ModuleList(CELLS[settings.cell](size, settings.hidden_size) for size in sizes[:-1])
        self.output = nn.Linear(settings.hidden_size, vocab_size)
        if settings.tied_weights:
            self.output.weight = self.embedding.weight
        rates = [settings.dropout] * (settings.num_layers + 1)  # of what each layer, and the softmax layer, reads
        rates[0] = settings.dropout if settings.embedding_dropout is None else settings.embedding_dropout
        rates[-1] = settings.dropout if settings.output_dropout is None else settings.output_dropout
        self.dropouts = nn.ModuleList(Dropout(rate, settings.locked_dropout) for rate in rates)
        self.weight_dropout = WeightDropout(settings.weight_dropout)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -settings.init_range, settings.init_range)

    def forward(
        self, tokens: Tensor, state: State | None = None, targets: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """tokens [time, batch], state of the window before (None: zeros) -> logits [time, batch, vocab], state.

        With targets [time, batch], the loss in nats, summed over those that are not padding, in place of the logits.
        A layer's state is [1, batch, hidden], or a pair of that shape.
        """
        features, state = self.features(tokens, state)
        if targets is None:
            return self.output(features), state
        loss = linear_cross_entropy(features.flatten(0, 1), self.output.weight, self.output.bias, targets.flatten())
        return loss, state

    def features(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens [time, batch], state -> what the softmax layer reads [time, batch, hidden], state."""
        x = self.dropouts[0](self.embedding(tokens))  # [time, batch, embedding]
        states: Sequence[LayerState | None] = state or [None] * len(self.layers)
        new_state: State = []
        for layer, dropout, before in zip(self.layers, self.dropouts[1:], states, strict=True):
            x, after = self.weight_dropout(layer, x, before)  # [time, batch, hidden]
            x = dropout(x)
            new_state.append(after)
        return x, new_state


def detach(state: State | None) -> State | None:
    """Keep a state's values and forget how they came about: where back-propagation is cut."""
    if state is None:
        return None
    return [part.detach() if isinstance(part, Tensor) else (part[0].detach(), part[1].detach()) for part in state]


def num_parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def build_model(settings: Settings, vocab_size: int) -> LanguageModel:
    """A freshly initialised model, the same for the same seed."""
    torch.manual_seed(settings.seed)
    return LanguageModel(settings, vocab_size)
