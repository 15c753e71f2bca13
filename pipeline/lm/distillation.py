"""Knowledge distillation: a model learns what others predict, as well as the text itself."""

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from pipeline.lm.loss import SoftTargets
from pipeline.lm.model import LanguageModel, State


class TaughtModel(nn.Module):
    """A model in training with its teachers, called as the model itself is with targets.

    A share of each target is what the teachers predict: the normalized geometric mean of their probabilities, that is,
    the softmax of their mean logits, without dropout (Hinton, Vinyals and Dean 2015, arXiv:1503.02531). Teachers no
    larger than the model help, too: Furlanello et al. 2018, arXiv:1805.04770.
    """

    def __init__(self, model: LanguageModel, teachers: Sequence[LanguageModel], share: float) -> None:
        """teachers: of the same vocabulary and on the same device, from now on without dropout and gradients."""
        super().__init__()
        self.model = model
        self.teachers = [teacher.eval().requires_grad_(False) for teacher in teachers]  # no part of what is trained
        for teacher in teachers:
            teacher.zero_grad()  # frees what its own training left
        self.share = share
        # The softmax layers as one, which makes the mean logits of all features side by side.
        weights, biases = zip(*((teacher.output.weight, teacher.output.bias) for teacher in teachers), strict=True)
        self.weight = (torch.cat(weights, dim=1).detach() / len(teachers)).t().contiguous()
        self.bias = torch.stack(biases).detach().mean(0)

    def forward(self, tokens: Tensor, state: State | None, targets: Tensor) -> tuple[Tensor, State]:
        """tokens, targets [time, batch], state: the model's, then each teacher's -> the summed loss in nats, state.

        The loss is the model's own on the text; its gradient, that with the mixed targets.
        """
        own, *of_teachers = self.parts(state)
        features, after = self.model.features(tokens, own)
        with torch.no_grad():
            read = [teacher.features(tokens, part) for teacher, part in zip(self.teachers, of_teachers, strict=True)]
        predicting = torch.cat([features for features, _ in read], dim=2)
        soft = SoftTargets(predicting.flatten(0, 1), self.weight, self.bias, self.share)
        return self.model.loss(features, targets, soft), sum((part for _, part in read), after)

    def parts(self, state: State | None) -> list[State | None]:
        """The state of each model, of all of them one after another."""
        models = [self.model, *self.teachers]
        if state is None:
            return [None for _ in models]
        layers = iter(state)
        return [list(islice(layers, len(model.layers))) for model in models]
