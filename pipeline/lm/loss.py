"""The softmax layer and its cross-entropy in one function: most of a training step's time is spent here."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.lm.batching import IGNORED
from pipeline.lm.device import product_dtype

ROWS = 50  # tokens at a time, so that their logits stay in the processor's cache


class SoftTargets(NamedTuple):
    """Other models' predictions, softmax(features @ weight + bias), which make up a share of the targets.

    features [tokens, hidden] and weight [hidden, vocab] of the type of the product, bias [vocab], share between 0 and
    1; none takes a gradient
    """

    features: Tensor
    weight: Tensor
    bias: Tensor
    share: float


def linear_cross_entropy(
    features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, soft: SoftTargets | None = None
) -> Tensor:
    """The summed loss in nats of the logits `features @ weight.T + bias`, without targets that are IGNORED.

    features [tokens, hidden], weight [vocab, hidden], bias [vocab], targets [tokens] -> scalar. Given soft targets, the
    gradient is that of the cross-entropy with the mixture of both kinds; the value stays that of the targets alone, so
    that it can be compared. A few large operations, as suits a GPU, where each one costs a launch.
    """
    logits = F.linear(features, weight, bias)  # [tokens, vocab]
    loss = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    if soft is None:
        return loss
    predicted = (soft.features @ soft.weight + soft.bias).softmax(1)
    losses = F.cross_entropy(logits, predicted, reduction="none") * (targets != IGNORED)
    mixed = loss.lerp(losses.sum(), soft.share)
    return mixed + (loss - mixed).detach()


def linear_cross_entropy_by_rows(
    features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, soft: SoftTargets | None = None
) -> Tensor:
    """The same, a few rows at a time, as suits a CPU's cache.

    The gradient p - (1 - share) onehot(target) - share softmax(soft) is computed along with the logits, so that those
    of all tokens are never held in float32. Matrix products are in autocast's type, everything else in float32.
    """
    loss: Tensor = _LinearCrossEntropy.apply(features, weight, bias, targets, soft)
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, weight, bias, targets, soft):  # type: ignore[no-untyped-def]
        dtype = product_dtype(features)
        x, w = features.to(dtype), weight.to(dtype)
        counts = targets != IGNORED
        targets = targets.masked_fill(~counts, 0)[:, None]
        log_likelihoods = torch.empty(targets.shape, device=x.device)
        logits = x @ w.t()
        buffer = torch.empty(ROWS, len(w), device=x.device)  # float32
        if soft is not None:
            soft_logits, soft_buffer = soft.features @ soft.weight, torch.empty_like(buffer)
        for start in range(0, len(x), ROWS):
            rows = slice(start, start + ROWS)
            target = targets[rows]
            p = buffer[: len(target)].copy_(logits[rows]).add_(bias)
            highest, target_logit = p.amax(1, keepdim=True), p.gather(1, target)
            p.sub_(highest).exp_()
            total = p.sum(1, keepdim=True)
            log_likelihoods[rows] = target_logit - highest - total.log()
            p.div_(total).scatter_add_(1, target, torch.full_like(total, -1 if soft is None else soft.share - 1))
            if soft is not None:
                q = soft_buffer[: len(target)].copy_(soft_logits[rows]).add_(soft.bias)
                q.sub_(q.amax(1, keepdim=True)).exp_()
                p.addcdiv_(q, q.sum(1, keepdim=True), value=-soft.share)
            logits[rows] = p
        ctx.save_for_backward(logits, x, w, counts)
        return -(log_likelihoods.squeeze(1) * counts).sum()

    @staticmethod
    def backward(ctx, d_loss):  # type: ignore[no-untyped-def]
        d_logits, x, w, counts = ctx.saved_tensors
        scale = (counts * d_loss)[:, None]
        d_features = (d_logits @ w).float() * scale
        d_weight = (d_logits.t() @ (x * scale).to(x.dtype)).float()
        d_bias = (scale.t().to(d_logits.dtype) @ d_logits).float().squeeze(0)
        return d_features, d_weight, d_bias, None, None
