"""The recurrent language model of Zaremba, Sutskever and Vinyals (2014), arXiv:1409.2329."""

from collections.abc import Callable, Sequence
from typing import overload

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.lm.backend import backend
from pipeline.lm.batching import as_int64
from pipeline.lm.cells import CELLS
from pipeline.lm.distributed import own_columns, world_size
from pipeline.lm.dropout import Mask
from pipeline.lm.loss import SoftTargets
from pipeline.lm.settings import Settings

TOKENS_COUNTED_AT_A_TIME = 2**20

LayerState = Tensor | tuple[Tensor, Tensor]  # hidden for the GRUs, (hidden, cell) for the LSTM
State = list[LayerState]


class LanguageModel(nn.Module):
    """Embedding, stacked recurrent layers, softmax layer; dropout on the non-recurrent connections only.

    That is, between embedding and first layer, between layers, and between last layer and softmax (Zaremba et al.,
    equation 7 and figure 2). The state carried through time is never dropped, but `weight_dropout` drops the weights
    that multiply it, for a window at a time (DropConnect: Merity, Keskar and Socher 2018, arXiv:1708.02182, section 2).
    `locked_dropout` uses one mask for all times of a window (variational dropout: Gal and Ghahramani 2016,
    arXiv:1512.05287). With `tied_weights`, embedding and softmax layer share their weights (Press and Wolf 2017,
    arXiv:1608.05859; Inan et al. 2017, arXiv:1611.01462).
    """

    def __init__(self, settings: Settings, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, settings.embedding_size)
        sizes = [settings.embedding_size] + [settings.hidden_size] * settings.num_layers
        self.layers = nn.ModuleList(CELLS[settings.cell](size, settings.hidden_size) for size in sizes[:-1])
        self.recurrent_weights = CELLS[settings.cell].recurrent_weights
        self.output = nn.Linear(settings.hidden_size, vocab_size)
        if settings.tied_weights:
            self.output.weight = self.embedding.weight
        rates = [settings.dropout] * (settings.num_layers + 1)  # of the input of each layer, and of the softmax layer
        rates[0] = settings.dropout if settings.embedding_dropout is None else settings.embedding_dropout
        rates[-1] = settings.dropout if settings.output_dropout is None else settings.output_dropout
        self.dropouts = list(zip(rates, sizes, strict=True))  # each with the number of features
        self.locked_dropout = settings.locked_dropout
        self.weight_dropout = settings.weight_dropout
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -settings.init_range, settings.init_range)

    def forward(
        self,
        tokens: Tensor,
        state: State | None = None,
        targets: Tensor | None = None,
        soft: SoftTargets | None = None,
    ) -> tuple[Tensor, State]:
        """tokens [time, batch], state of the previous window (None: zeros) -> logits [time, batch, vocab], state.

        Given targets [time, batch], returns instead of the logits the loss in nats, summed over all but the padding;
        given soft ones as well, its gradient is that with both. A layer's state is [1, batch, hidden], or a pair of
        that shape.
        """
        features, state = self.features(tokens, state)
        output, ways = self.output, backend(features.device)
        if targets is None:
            return output(features), state
        features, targets = features.flatten(0, 1), targets.flatten()
        return ways.linear_cross_entropy(features, output.weight, output.bias, targets, soft), state

    def features(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens [time, batch], state -> the softmax layer's input [time, batch, hidden], state."""
        ways = backend(tokens.device)
        wanted = self.masks(*tokens.shape) if self.training else {}
        masks = dict(zip(wanted, ways.draw_masks(list(wanted.values()), tokens.device), strict=True))
        x = dropped(self.embedding(tokens), masks.get((0, "")))  # [time, batch, embedding]
        states: Sequence[LayerState | None] = state or [None] * len(self.layers)
        new_state: State = []
        for place, (layer, before) in enumerate(zip(self.layers, states, strict=True), start=1):
            of_weights = {name: mask for (where, name), mask in masks.items() if where == place and name}
            weights = ways.drop_weights(layer, of_weights) if of_weights else {}
            x, after = functional_call(layer, weights, (x, before)) if weights else layer(x, before)
            x = dropped(x, masks.get((place, "")))  # [time, batch, hidden]
            new_state.append(after)
        return x, new_state

    def masks(self, time: int, batch: int) -> dict[tuple[int, str], Mask]:
        """What is dropped in a training window, in the order of use.

        The key (place, name) stands for the recurrent weights of that name in the layer at that place, counted from 1;
        without a name, for the layer's output, and at place 0 for the embedding's. Processes that share a batch draw
        the masks of all its columns, so that the result does not depend on their number.
        """
        time = 1 if self.locked_dropout else time
        wanted: dict[tuple[int, str], Mask] = {}
        for place, (rate, features) in enumerate(self.dropouts):
            if place and self.weight_dropout:
                layer = self.layers[place - 1]
                shapes = {name: layer.get_parameter(name).shape for name in self.recurrent_weights}
                wanted |= {(place, name): Mask(shape, self.weight_dropout) for name, shape in shapes.items()}
            if rate:
                wanted[place, ""] = Mask(torch.Size([time, batch * world_size(), features]), rate)
        return wanted


def dropped(x: Tensor, mask: Tensor | None) -> Tensor:
    """x [time, batch, features] times the mask of the whole batch [time or 1, batch, features]; None: `x` itself."""
    return x if mask is None else x * own_columns(mask)


def state_tensors(state: State) -> list[Tensor]:
    """The tensors of a state, layer by layer."""
    return [tensor for part in state for tensor in ([part] if isinstance(part, Tensor) else part)]


def map_state(function: Callable[[Tensor], Tensor], state: State) -> State:
    """A state of which each tensor is what the function makes of it."""
    return [function(part) if isinstance(part, Tensor) else (function(part[0]), function(part[1])) for part in state]


@overload
def detach(state: State) -> State: ...
@overload
def detach(state: State | None) -> State | None: ...
def detach(state: State | None) -> State | None:
    """The same values without their history: where back-propagation through time is cut off."""
    return None if state is None else map_state(Tensor.detach, state)


def without_dropout(model: LanguageModel) -> LanguageModel:
    """The model itself, with dropout off, but so that it can be differentiated.

    cuDNN computes no gradients for a layer in evaluation mode, and nothing else in a layer depends on the mode. It also
    needs a layer's weights in one piece of memory, which those of a copied model are not.
    """
    model.eval()
    for layer in model.layers.train():
        if isinstance(layer, nn.RNNBase):
            layer.flatten_parameters()
    return model


@torch.no_grad()
def start_as_unigrams(model: LanguageModel, tokens: Tensor) -> None:
    """Set the softmax layer's bias to the log probabilities of the words of a text, its ids [length].

    A model that is not trained then predicts as a unigram model does, near enough. Each word is counted once more than
    it occurs (add-one smoothing).
    """
    vocab_size = model.output.out_features
    counts = torch.ones(vocab_size, dtype=torch.int64)
    for part in tokens.split(TOKENS_COUNTED_AT_A_TIME):
        counts += torch.bincount(as_int64(part), minlength=vocab_size)
    model.output.bias.copy_(counts.log() - counts.sum().log())


def num_parameters(model: nn.Module) -> int:
    """The number of trained parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def build_model(settings: Settings, vocab_size: int) -> LanguageModel:
    """A freshly initialised model, the same for the same seed."""
    torch.manual_seed(settings.seed)
    return LanguageModel(settings, vocab_size)
