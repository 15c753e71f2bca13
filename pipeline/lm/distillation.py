"""Knowledge distillation: a model learns what others predict, as well as the text itself.

Each teacher reads the training text once, before the model is trained: without dropout it makes the same of it in every
epoch, wherever windows are cut. What is kept are its features, the input of its softmax layer.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.lm.batching import Batches
from pipeline.lm.device import choose_precision, chooses_tf32, products_in, tf32_products
from pipeline.lm.loss import SoftTargets
from pipeline.lm.model import LanguageModel

MOST_OF_MEMORY = 0.5  # the share of a GPU's free memory that a teacher's features may take


class Teacher(NamedTuple):
    """A teacher that has read the training text.

    features [time, columns, hidden], of any float type, perhaps mapped from disk: `read` gives them window by window
    weight [vocab, hidden], bias [vocab]: its softmax layer
    """

    features: Tensor
    weight: Tensor
    bias: Tensor


@torch.no_grad()
def read(teacher: LanguageModel, text: Batches, precision: str) -> Iterator[Tensor]:
    """A teacher's features of each window [time, columns, hidden], in float32, the state carried from one to the next.

    precision: that of the matrix products, as in the settings
    """
    teacher.eval()
    dtype, tf32 = choose_precision(precision, text.device), chooses_tf32(precision, text.device)
    state = None
    for inputs, _, _ in text:
        with products_in(dtype, text.device), tf32_products(tf32):
            features, state = teacher.features(inputs, state)
        yield features.float()


class Teachers:
    """What teachers predict together: the normalized geometric mean of their probabilities.

    That is the softmax of their mean logits (Hinton, Vinyals and Dean 2015, arXiv:1503.02531). Teachers no larger than
    the model help, too: Furlanello et al. 2018, arXiv:1805.04770.
    """

    def __init__(self, teachers: Sequence[Teacher], share: float, precision: torch.dtype, device: torch.device) -> None:
        """teachers: of one vocabulary; share: of each target, what they predict; precision: that of the student."""
        self.features = [_where_they_fit(teacher.features, device) for teacher in teachers]
        self.precision = precision
        self.device = device
        self.share = share
        # The softmax layers as one, which makes the mean logits of all features side by side.
        weight = torch.cat([teacher.weight for teacher in teachers], dim=1).detach() / len(teachers)
        self.weight = weight.t().to(device, precision).contiguous()
        self.bias = torch.stack([teacher.bias for teacher in teachers]).detach().mean(0).to(device)

    def soft_targets(self, start: int, end: int) -> SoftTargets:
        """What they predict at some steps of the text's columns."""
        parts = [features[start:end].to(self.device, self.precision) for features in self.features]
        return SoftTargets(torch.cat(parts, dim=2).flatten(0, 1), self.weight, self.bias, self.share)


def _where_they_fit(features: Tensor, device: torch.device) -> Tensor:
    """On the GPU, if there is room; else where they are."""
    if device.type == "cuda" and features.nbytes < MOST_OF_MEMORY * torch.cuda.mem_get_info(device)[0]:
        return features.to(device)
    return features
