"""On a GPU: what is compared and counted on a CPU elsewhere, held against the real thing (`make gpu`).

Needs PyTorch with CUDA and pytest, but neither DVC nor MLflow. With RNN_TEST_DEVICE=cpu all that does not need CUDA
itself runs on a CPU, by the GPU's way, so that these tests are known to be sound where there is no GPU.
"""

import io
import os
import warnings

import pytest
import torch
from torch import Tensor

from pipeline.lm import backend as table
from pipeline.lm.batching import Batches
from pipeline.lm.device import choose_device, make_reproducible, trains_in_bfloat16
from pipeline.lm.dropout import draw_masks_in_turn
from pipeline.lm.errors import TooFewGpusError
from pipeline.lm.evaluation import evaluate, perplexity
from pipeline.lm.model import build_model
from pipeline.lm.settings import Settings
from pipeline.lm.training import Training
from tests.small import CELLS, small_settings
from tests.test_golden import GOLDEN, evaluated, sample_corpus, trajectory

DEVICE = os.environ.get("RNN_TEST_DEVICE", "cuda")
PRECISIONS = ["float32", "bfloat16"]
CPU = torch.device("cpu")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="PyTorch finds no CUDA here"),
]
needs_cuda = pytest.mark.skipif(DEVICE != "cuda", reason="needs CUDA itself")


@pytest.fixture(autouse=True)
def by_the_gpus_way(monkeypatch: pytest.MonkeyPatch) -> None:
    make_reproducible()
    if DEVICE == "cpu":
        monkeypatch.setitem(table.BACKENDS, "cpu", table.GPU._replace(recorder=None))


@pytest.fixture
def masks_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The masks that a CPU draws: a GPU draws others from the same seed."""
    ways = table.BACKENDS[DEVICE]

    def draw(wanted: list, device: torch.device) -> list[Tensor]:
        return [mask.to(device) for mask in draw_masks_in_turn(wanted, CPU)]

    monkeypatch.setitem(table.BACKENDS, DEVICE, ways._replace(draw_masks=draw, recorder=None))


def on_device(settings: Settings, precision: str = "float32") -> Settings:
    if DEVICE == "cpu" and precision == "bfloat16" and not trains_in_bfloat16():
        pytest.skip("this processor cannot train in bfloat16")
    return settings.model_copy(update={"device": DEVICE, "precision": precision})


def sample_training(settings: Settings, words: int = 20_000) -> Training:
    """On the beginning of an endless text of the shape of Penn Treebank's: whole steps of the default size."""
    text = torch.randint(200, (words,), generator=torch.Generator().manual_seed(1)) ** 2 % 199
    return Training(settings, text, text[:3000], 200)


def weights(training: Training) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in training.model.parameters()])


def dropping(cell: str, **others: object) -> Settings:
    return small_settings(
        cell=cell, hidden_size=200, embedding_size=200, batch_size=20, bptt=25, learning_rate=0.2, dropout=0.4, **others
    )


@pytest.mark.usefixtures("masks_of_the_cpu")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_trajectory_is_the_cpus(name: str, precision: str, tmp_path: object) -> None:
    pinned = GOLDEN[name]
    settings = on_device(Settings.model_validate(pinned["settings"]), precision)
    corpus = sample_corpus(tmp_path)
    losses, training = trajectory(settings, corpus)
    tolerance = 1e-3 if precision == "float32" else 2e-2
    assert losses == pytest.approx(pinned["losses"], rel=tolerance)
    for figure, value in evaluated(training.model, settings, corpus, training.device).items():
        assert value == pytest.approx(pinned[figure], rel=10 * tolerance)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_resumed_training_ends_with_the_same_weights_to_the_bit(cell: str, precision: str) -> None:
    settings = on_device(dropping(cell, weight_dropout=0.2), precision)
    ends = []
    for cuts in ([], [1]):
        training = sample_training(settings)
        for epoch in range(2):
            if epoch in cuts:
                saved = training.state_dict()
                training = sample_training(settings)
                training.load_state_dict(saved)
            training.run_epoch()
        ends.append(weights(training))
    assert torch.equal(*ends)


@pytest.mark.parametrize("taken", [1, 3, 5, 20])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_training_left_in_the_middle_of_an_epoch_ends_with_the_same_weights_to_the_bit(
    cell: str, precision: str, taken: int
) -> None:
    settings = on_device(dropping(cell, weight_dropout=0.2), precision)
    whole, left = sample_training(settings), sample_training(settings)
    record = whole.run_epoch()

    def leave() -> None:
        if left.current.steps == taken:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        left.run_epoch(leave)
    saved = io.BytesIO()
    torch.save(left.state_dict(), saved)
    saved.seek(0)
    resumed = sample_training(settings)
    resumed.load_state_dict(torch.load(saved, map_location="cpu", weights_only=True))
    assert resumed.run_epoch().train_perplexity == record.train_perplexity
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_two_trainings_end_with_the_same_weights_and_no_operation_is_known_to_vary(cell: str, precision: str) -> None:
    settings = on_device(dropping(cell), precision)
    torch.use_deterministic_algorithms(True)  # which refuses operations that are known to
    try:
        first, second = sample_training(settings), sample_training(settings)
        for training in (first, second):
            training.run_epoch()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(weights(first), weights(second))


@needs_cuda
@pytest.mark.parametrize("optimizer", [{"name": "sgd", "momentum": 0.8}, {"name": "adamw", "weight_decay": 0.01}])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_replayed_as_a_graph_it_trains_as_step_by_step(cell: str, precision: str, optimizer: dict) -> None:
    schedule = {"name": "linear", "warmup": 0.1}
    settings = on_device(dropping(cell, optimizer=optimizer, schedule=schedule), precision)
    if optimizer["name"] == "adamw":
        settings = settings.model_copy(update={"learning_rate": 0.001})
    ends = []
    for choice in ("auto", "off"):
        training = sample_training(settings.model_copy(update={"cuda_graph": choice}))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no falling back
            records = [training.run_epoch() for _ in range(2)]
        ends.append((weights(training), [record.train_perplexity for record in records]))
    torch.testing.assert_close(ends[0][0], ends[1][0], rtol=0, atol=1e-4)
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-4)


@needs_cuda
@pytest.mark.parametrize("cell", CELLS)
def test_no_step_waits_for_the_gpu(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training = sample_training(on_device(dropping(cell, weight_dropout=0.2, cuda_graph="off")))
    monkeypatch.setattr("pipeline.lm.training.STEPS_BETWEEN_CHECKS", 10**9)
    training.run_epoch()
    training.model.train()
    windows, take_step, state = list(training.train)[:5], training.steps(), None
    scale = torch.ones((), device=training.device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for window in windows:
            _, _, state = take_step(window.inputs, window.targets, scale, state)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["lstm_dropout", "lstm", "gru_dropout", "gru"])
def test_an_epoch_of_the_sample_corpus_and_its_evaluation_as_on_a_cpu(
    name: str, precision: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = on_device(Settings.model_validate(GOLDEN[name]["settings"]), precision)
    corpus = sample_corpus(tmp_path)
    text = corpus.train if DEVICE == "cuda" else corpus.train[:5000]  # a CPU is slow, and only tries the test out
    training = Training(settings, text, corpus.valid, len(corpus.vocabulary))
    record = training.run_epoch()
    assert record.train_perplexity < len(corpus.vocabulary)

    monkeypatch.setitem(table.BACKENDS, "cpu", table.CPU)
    model = build_model(settings, len(corpus.vocabulary))
    model.load_state_dict({key: weight.cpu() for key, weight in training.model.state_dict().items()})
    on_cpu = evaluate(model, Batches(corpus.valid, settings.batch_size, settings.bptt))
    assert record.valid_perplexity == pytest.approx(perplexity(on_cpu), abs=0.01)


@needs_cuda
def test_two_ranks_on_one_gpu_are_refused_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = torch.cuda.device_count()
    monkeypatch.setenv("LOCAL_RANK", str(gpus))
    with pytest.raises(TooFewGpusError) as fault:
        choose_device("cuda")
    assert fault.value.args == (gpus,)
