"""The recurrent language model of Zaremba, Sutskever and Vinyals (2014), arXiv:1409.2329."""

import torch
from torch import Tensor, nn

from pipeline.lm.settings import Settings

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}

State = Tensor | tuple[Tensor, Tensor]


class LanguageModel(nn.Module):
    """Embedding, stacked recurrent layers, softmax layer; dropout on the non-recurrent connections only.

    That is, between embedding and first layer, between layers, and between last layer and softmax (Zaremba et al.,
    equation 7 and figure 2): the state carried through time is never dropped.
    """

    def __init__(self, settings: Settings, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, settings.embedding_size)
        self.rnn = CELLS[settings.cell](
            settings.embedding_size,
            settings.hidden_size,
            num_layers=settings.num_layers,
            dropout=settings.dropout if settings.num_layers > 1 else 0.0,  # between layers
        )
        self.output = nn.Linear(settings.hidden_size, vocab_size)
        self.dropout = nn.Dropout(settings.dropout)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -settings.init_range, settings.init_range)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens [time, batch], state of the window before (None: zeros) -> logits [time, batch, vocab], state.

        A state is [layers, batch, hidden] for the GRU and a pair (hidden, cell) of that shape for the LSTM.
        """
        embedded = self.dropout(self.embedding(tokens))  # [time, batch, embedding]
        hidden, state = self.rnn(embedded, state)  # [time, batch, hidden]
        return self.output(self.dropout(hidden)), state


def num_parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def build_model(settings: Settings, vocab_size: int) -> LanguageModel:
    """A freshly initialised model, the same for the same seed."""
    torch.manual_seed(settings.seed)
    return LanguageModel(settings, vocab_size)
