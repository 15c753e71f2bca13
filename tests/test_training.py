"""Training and evaluation: honest perplexities, the recipe's updates, the same result to the bit."""

import io
import math
import random
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F

from pipeline.inference.temperature import best_temperature
from pipeline.lm.batching import Batches
from pipeline.lm.device import trains_in_bfloat16
from pipeline.lm.errors import DivergedError
from pipeline.lm.evaluation import batches_of, evaluate, perplexity
from pipeline.lm.model import LanguageModel, build_model
from pipeline.lm.schedule import learning_rate
from pipeline.lm.settings import Settings
from pipeline.lm.training import Training
from tests.small import CELLS, OPTIMIZERS, everything, small_settings

VOCAB = 30
TEXT = torch.randint(VOCAB, (601,), generator=torch.Generator().manual_seed(0))


def untrained(settings: Settings, precision: torch.dtype = torch.float32) -> Training:
    training = Training(settings, TEXT[:450], TEXT[450:], VOCAB)
    training.precision = precision  # a GRU trains in bfloat16 even where `choose_precision` refuses it
    return training


def trained(settings: Settings, epochs: int = 3, precision: torch.dtype = torch.float32) -> Training:
    if precision is torch.bfloat16 and settings.cell == "lstm" and not trains_in_bfloat16():
        pytest.skip("this processor cannot train an LSTM in bfloat16")
    training = untrained(settings, precision)
    for _ in range(epochs):
        training.run_epoch()
    return training


def weights(model: LanguageModel) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("random_windows", [False, True])
def test_an_epochs_loss_so_far_becomes_its_loss(random_windows: bool) -> None:
    training = untrained(small_settings(random_windows=random_windows))
    so_far: list[float] = []

    def on_step() -> None:
        assert training.current
        so_far.append(training.current.mean_loss())

    mean_loss, _ = training.train_epoch(1, on_step)
    assert so_far[-1] == pytest.approx(mean_loss, rel=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_perplexity_does_not_depend_on_the_window_length(cell: str) -> None:
    model = build_model(small_settings(cell=cell), VOCAB)
    losses = [evaluate(model, Batches(TEXT, 4, bptt)) for bptt in (1, 7, 25, 1000)]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)


def test_figures_do_not_depend_on_the_batch_size_by_a_bit() -> None:
    text = torch.randint(VOCAB, (12_000,), generator=torch.Generator().manual_seed(0))
    weights, figures = build_model(small_settings(init_range=0.5), VOCAB).state_dict(), set()
    for batch_size in (1, 20, 200, 2_000):
        training = Training(small_settings(batch_size=batch_size), text[:2_001], text, VOCAB)
        training.model.load_state_dict(weights)
        splits = batches_of({"valid": text, "test": text[:700]}, training.device)
        assert [splits[split].batch_size for split in splits] == [20, 1]
        losses = [evaluate(training.model, layout) for layout in (training.valid, *splits.values())]
        figures.add((*losses, best_temperature(training.model, splits["test"])))
    assert len(figures) == 1


@pytest.mark.parametrize("cell", CELLS)
def test_perplexity_is_that_of_the_text_read_as_one(cell: str) -> None:
    model = build_model(small_settings(cell=cell, init_range=0.5), VOCAB).eval()
    logits, _ = model(TEXT[:-1, None])
    whole = F.cross_entropy(logits[:, 0], TEXT[1:]).item()
    assert evaluate(model, Batches(TEXT, 1, 25)) == pytest.approx(whole, rel=1e-6)


def test_a_uniform_model_has_the_vocabulary_as_its_perplexity() -> None:
    model = build_model(small_settings(init_range=1e-9), VOCAB)
    assert perplexity(evaluate(model, Batches(TEXT, 4, 5))) == pytest.approx(VOCAB, rel=1e-5)


def test_the_schedule_of_the_default_recipe() -> None:
    settings = small_settings(learning_rate=1.0, schedule={"name": "decay", "constant_epochs": 15, "decay": 0.98})
    table = {1: 1.0, 15: 1.0, 16: 0.98, 17: 0.9604, 70: 0.98**55}
    assert {epoch: learning_rate(settings, epoch - 1) for epoch in table} == pytest.approx(table)


def test_the_schedule_of_zaremba() -> None:
    settings = small_settings(learning_rate=1.0, schedule={"name": "decay", "constant_epochs": 5, "decay": 0.5})
    table = {1: 1.0, 5: 1.0, 6: 0.5, 7: 0.25, 13: 2.0**-8}
    assert {epoch: learning_rate(settings, epoch - 1) for epoch in table} == pytest.approx(table)


def test_the_rate_falls_to_zero_after_a_warmup() -> None:
    settings = small_settings(epochs=10, learning_rate=10.0, schedule={"name": "linear", "warmup": 0.1})
    table = {0: 0, 0.5: 5, 1: 10, 5.5: 5, 10: 0}
    assert {done: learning_rate(settings, done) for done in table} == pytest.approx(table)


def test_without_warmup_the_rate_falls_from_the_first_step() -> None:
    settings = small_settings(epochs=2, learning_rate=1.0, schedule={"name": "linear", "warmup": 0.0})
    assert [learning_rate(settings, done) for done in (0, 1, 2)] == [1, 0.5, 0]


def test_a_loss_summed_over_time_is_the_mean_with_rate_and_clipping_scaled() -> None:
    """Rate 1 and clip 5 on the sum over 20 steps equal rate 20 and clip 0.25 on the mean."""
    one = {"bptt": 20, "batch_size": 3, "optimizer": {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}}
    summed = small_settings(loss="sum_over_time", learning_rate=1.0, max_grad_norm=5.0, **one)
    mean = small_settings(loss="mean", learning_rate=20.0, max_grad_norm=0.25, **one)
    text = TEXT[:301]  # 300 targets: five whole windows, no padding
    results = []
    for settings in (summed, mean):
        training = Training(settings, text, text, VOCAB)
        training.run_epoch()
        results.append(torch.cat([weight.flatten() for weight in weights(training.model)]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_the_gradient_is_clipped_to_its_norm() -> None:
    """Without momentum, no step moves the weights farther than rate times max_grad_norm."""
    settings = small_settings(
        max_grad_norm=0.01, learning_rate=0.5, optimizer={"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}
    )
    training = Training(settings, TEXT[:21], TEXT[:21], VOCAB)  # one window: one update
    before = weights(training.model)
    record = training.run_epoch()
    moved = [after - start for after, start in zip(weights(training.model), before, strict=True)]
    distance = torch.cat([move.flatten() for move in moved]).norm().item()
    assert record.grad_norm > 0.01  # measured before clipping
    assert distance == pytest.approx(0.5 * 0.01, rel=1e-3)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cell", CELLS)
def test_two_trainings_of_one_seed_are_equal_to_the_bit(cell: str, precision: torch.dtype) -> None:
    settings = small_settings(cell=cell, dropout=0.4)
    first, second = (trained(settings, precision=precision) for _ in range(2))
    assert all(map(torch.equal, weights(first.model), weights(second.model)))
    assert [r.valid_perplexity for r in first.history] == [r.valid_perplexity for r in second.history]
    other = trained(small_settings(cell=cell, dropout=0.4, seed=2), precision=precision)
    assert not torch.equal(first.model.output.weight, other.model.output.weight)


@pytest.mark.parametrize("cell", CELLS)
def test_products_in_bfloat16_train_as_well_and_leave_weights_and_evaluation_in_float32(cell: str) -> None:
    settings = small_settings(cell=cell)
    exact, rounded = trained(settings), trained(settings, precision=torch.bfloat16)
    assert rounded.history[-1].valid_perplexity == pytest.approx(exact.history[-1].valid_perplexity, rel=0.01)
    assert rounded.history[-1].valid_perplexity != exact.history[-1].valid_perplexity
    assert all(weight.dtype is torch.float32 for weight in rounded.model.parameters())
    loss = evaluate(rounded.model, rounded.valid)
    assert perplexity(loss) == rounded.history[-1].valid_perplexity


def test_the_first_step_of_adamw_moves_every_weight_by_the_rate_at_most() -> None:
    """Bias-corrected, its first update is the rate times the gradient's sign."""
    settings = small_settings(optimizer={"name": "adamw", "weight_decay": 0.0}, learning_rate=0.01)
    training = Training(settings, TEXT[:21], TEXT[:21], VOCAB)  # one window: one update
    before = weights(training.model)
    training.run_epoch()
    moved = [(after - start).abs().max() for after, start in zip(weights(training.model), before, strict=True)]
    assert [distance.item() for distance in moved] == pytest.approx([0.01] * len(moved), rel=1e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adamw"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_restored_training_goes_on_to_the_same_weights_to_the_bit(cell: str, optimizer: dict) -> None:
    settings = everything(cell, optimizer).model_copy(update={"random_windows": True})
    uninterrupted = trained(settings, epochs=4)
    restored = untrained(settings)
    restored.load_state_dict(trained(settings, epochs=2).state_dict())
    for _ in range(2):
        restored.run_epoch()
    assert all(map(torch.equal, weights(uninterrupted.model), weights(restored.model)))
    assert all(torch.equal(uninterrupted.best_weights[k], restored.best_weights[k]) for k in restored.best_weights)


class KilledError(Exception):
    """What happens to a training after its last checkpoint."""


def killed_at(steps: Iterator[int], settings: Settings, train: Callable[[], Training]) -> tuple[Training, int]:
    """A training killed after each so many further steps or windows of validation; with how often that was."""
    saved, left = io.BytesIO(), next(steps)
    training, kills = train(), 0

    def pause() -> None:
        nonlocal left
        left -= 1
        if not left:
            left = next(steps)
            torch.save(training.state_dict(), saved)
            raise KilledError

    while not training.finished:
        try:
            training.run_epoch(pause)
        except KilledError:
            kills += 1
            saved.seek(0)
            training = train()
            training.load_state_dict(torch.load(saved, weights_only=True))
            saved = io.BytesIO()
    return training, kills


def figures(training: Training) -> list[tuple[float, ...]]:
    return [(r.train_perplexity, r.valid_perplexity, r.grad_norm, r.learning_rate) for r in training.history]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adamw"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_training_killed_at_random_steps_ends_as_if_it_never_was(cell: str, optimizer: dict) -> None:
    settings = everything(cell, optimizer).model_copy(update={"random_windows": True})
    moments = random.Random(cell)
    steps = iter(lambda: moments.randint(1, 20), None)
    killed, kills = killed_at(steps, settings, lambda: untrained(settings))
    uninterrupted = trained(settings)
    assert kills > 3
    assert all(map(torch.equal, weights(uninterrupted.model), weights(killed.model)))
    assert figures(killed) == figures(uninterrupted)
    assert all(torch.equal(uninterrupted.best_weights[k], killed.best_weights[k]) for k in killed.best_weights)


def test_the_seconds_of_a_killed_epoch_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr("pipeline.lm.training.time.perf_counter", lambda: float(next(clock)))
    settings = small_settings(epochs=1)
    whole = trained(settings, epochs=1).history[0]
    killed, _ = killed_at(iter([10, 10**9]), settings, lambda: untrained(settings))
    assert killed.history[0].seconds == whole.seconds


def test_the_best_weights_are_those_of_the_best_validation_epoch() -> None:
    settings = small_settings(learning_rate=5.0, hidden_size=32)  # over-fits the random text at once
    training = trained(settings, epochs=6)
    valid = [record.valid_perplexity for record in training.history]
    assert valid.index(min(valid)) < 5
    training.model.load_state_dict(training.best_weights)
    assert perplexity(evaluate(training.model, training.valid)) == min(valid)


@pytest.mark.parametrize("bad_weight", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training_and_keeps_the_best_weights(bad_weight: float) -> None:
    training = trained(small_settings(), epochs=1)
    kept = {name: weight.clone() for name, weight in training.best_weights.items()}
    with torch.no_grad():
        training.model.output.bias[0] = bad_weight
    with pytest.raises(DivergedError) as fault:
        training.run_epoch()
    assert fault.value.args[1:] == (1, 2)
    assert len(training.history) == 1
    assert all(torch.equal(kept[name], training.best_weights[name]) for name in kept)
