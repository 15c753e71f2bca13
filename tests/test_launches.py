"""On a GPU each operation costs a launch: a step has no more of them than the plain loop's, and never waits."""

import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from benchmarks.throughput import VOCAB_SIZE, PlainModel, PlainState, plain_step, random_text
from pipeline.lm import backend as table
from pipeline.lm.batching import Batches
from pipeline.lm.settings import Settings
from pipeline.lm.step import Given
from pipeline.lm.training import Training
from pipeline.lm.update import build_optimizer
from tests.launches import NoWaiting, as_on_a_gpu, launches
from tests.small import CELLS, committed_params, small_settings

MODELS = committed_params().models


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for device in ("cpu", "meta"):
        monkeypatch.setitem(table.BACKENDS, device, table.GPU._replace(recorder=None))
    with as_on_a_gpu(monkeypatch):
        yield


def product_step(settings: Settings) -> Callable[[], object]:
    """The product's step, as `train_epoch` takes it once the rate has been set."""
    settings = settings.model_copy(update={"device": "cpu", "precision": "float32"})
    text = random_text(settings, steps=1)
    training = Training(settings, text, text[:2], VOCAB_SIZE)
    (window,) = training.train
    state, results = None, torch.zeros(2, 1)
    table.backend(training.device).set_rate(training.optimizer, 0.1)
    take_step = training.steps()
    training.model.train()
    scale = torch.tensor(1 / window.num_tokens)

    def step() -> None:
        nonlocal state
        loss, grad_norm, state = take_step(Given(window.inputs, window.targets, scale), state)
        torch.stack((loss, grad_norm), out=results[:, 0])

    return step


def step_of_plain_loop(settings: Settings) -> Callable[[], object]:
    """That of benchmarks/throughput.py; on a GPU PyTorch makes its optimizer `foreach` by itself."""
    model = PlainModel(settings)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, settings.optimizer.momentum, foreach=True)
    (window,) = Batches(random_text(settings, steps=1), settings.batch_size, settings.bptt)
    state: PlainState = None

    def step() -> None:
        nonlocal state
        _, state = plain_step(model, optimizer, window, state, settings)

    return step


@pytest.mark.parametrize("name", MODELS)
def test_a_step_launches_no_more_than_the_plain_loops(name: str) -> None:
    plain, product = launches(step_of_plain_loop(MODELS[name])), launches(product_step(MODELS[name]))
    assert product.total() <= plain.total(), f"{product - plain} where the plain loop has {plain - product}"


def test_the_masks_of_a_step_are_drawn_in_one_go() -> None:
    drawn = [launches(product_step(MODELS[name]))["bernoulli_"] for name in ("lstm_dropout", "lstm")]
    assert drawn == [1, 0]


DROPPED = {"dropout": 0.4, "output_dropout": 0.2, "weight_dropout": 0.3, "locked_dropout": True}
OPTIMIZERS = [{"name": "sgd", "momentum": 0.8}, {"name": "adamw", "weight_decay": 0.01}]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("max_grad_norm", [5.0, None])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adamw"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_step_never_waits_for_the_device(
    cell: str, optimizer: dict, max_grad_norm: float | None, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_settings(cell=cell, optimizer=optimizer, max_grad_norm=max_grad_norm, **DROPPED)
    text = torch.zeros(settings.batch_size * settings.bptt + 1, dtype=torch.int64)
    training = Training(settings, text, text, 20)
    training.optimizer = build_optimizer(training.model.to(device).train(), settings)
    training.optimizer.param_groups[0]["lr"] = torch.zeros((), device=device)
    if device == "meta":  # which the fused optimizers are told to take for one of theirs
        for name in ("_fused_sgd_", "_fused_adamw_"):
            monkeypatch.setattr(torch, name, lambda *_, **__: None)
        optimizers = sys.modules["torch.optim.optimizer"]
        monkeypatch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: ["meta"])
    (window,) = training.train
    given = Given(window.inputs.to(device), window.targets.to(device), torch.zeros((), device=device))
    _, _, state = training.steps()(given, None)  # the first makes buffers, and PyTorch imports what it needs
    with NoWaiting():
        for _ in range(2):
            _, _, state = training.steps()(given, state)


WAITS: list[Callable[[Tensor], object]] = [
    lambda x: x.item(),
    lambda x: x.tolist(),
    lambda x: x.cpu(),
    lambda x: x.numpy(),
    lambda x: x.nonzero(),
    lambda x: x[x > 0],
    lambda x: bool(x.sum() > 0),
    lambda x: float(x.sum()),
    lambda x: x + torch.tensor([1.0]),
    lambda x: x * torch.tensor(2.0, device=x.device),
    lambda x: torch.equal(x, x),
]


@pytest.mark.parametrize("wait", WAITS)
def test_what_waits_is_seen(wait: Callable[[Tensor], object]) -> None:
    seen = 0
    for device in ("cpu", "meta"):
        try:
            with NoWaiting():
                wait(torch.zeros(3, device=device))
        except (AssertionError, RuntimeError, NotImplementedError, TypeError):
            seen += 1
    assert seen
