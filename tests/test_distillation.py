"""A model that learns from teachers: its targets, its state, its settings, and the command that trains them all."""

import copy
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from mlflow import MlflowClient
from ruamel.yaml import YAML
from torch import Tensor, multiprocessing, nn

from pipeline import train as command
from pipeline.artifacts.checkpoint import checkpoint_path, fingerprint, load_checkpoint, save_checkpoint
from pipeline.artifacts.history import history_path, read_history
from pipeline.corpus.ids import load_corpus, write_corpus
from pipeline.evaluate import evaluate_model
from pipeline.lm import backend as table
from pipeline.lm.batching import IGNORED
from pipeline.lm.distillation import TaughtModel
from pipeline.lm.loss import ROWS, SoftTargets, linear_cross_entropy, linear_cross_entropy_by_rows
from pipeline.lm.memory import bytes_of_weights, num_weights
from pipeline.lm.model import LanguageModel, build_model
from pipeline.lm.settings import Settings, overlay
from pipeline.lm.training import Training
from pipeline.params import check
from pipeline.project.console import UserError
from pipeline.project.files import SPLITS
from pipeline.project.params import load_params, parse_params
from pipeline.search.sweep_file import load_sweep
from pipeline.train import TEACHER, train
from tests.recorder import RecordedOnCPU
from tests.small import ROOT, default_params, small_settings
from tests.workspaces import held_until_awaited

VOCAB = 30
CELLS = ["lstm", "gru"]
TEXT = torch.randint(VOCAB, (401,), generator=torch.Generator().manual_seed(0))
WAYS = [linear_cross_entropy, linear_cross_entropy_by_rows]


def student(**overrides: Any) -> Settings:
    """A small LSTM with dropout that learns half of each target from an LSTM and a GRU."""
    teachers = [{"dropout": 0.0, "seed": 2}, {"cell": "gru", "learning_rate": 0.5}]
    own = {"dropout": 0.2, "weight_dropout": 0.2, "distillation": {"share": 0.5, "teachers": teachers}}
    return Settings.model_validate(overlay(small_settings().model_dump(), own | overrides))


def untrained_teachers(settings: Settings) -> list[LanguageModel]:
    return [build_model(teacher.model_copy(update={"init_range": 0.5}), VOCAB) for teacher in settings.teachers]


def new_training(settings: Settings) -> Training:
    return Training(settings, TEXT, TEXT[:99], VOCAB, untrained_teachers(settings))


def weights(model: LanguageModel) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("tokens", [2, ROWS, 3 * ROWS + 1])
@pytest.mark.parametrize("way", WAYS)
def test_the_gradient_is_that_of_the_mixed_targets_and_the_value_that_of_the_text(
    way: Callable[..., Tensor], tokens: int, share: float
) -> None:
    torch.manual_seed(tokens)
    inputs = [torch.randn(shape, requires_grad=True) for shape in [(tokens, 8), (VOCAB, 8), (VOCAB,)]]
    targets = torch.randint(VOCAB, (tokens,))
    targets[::7] = IGNORED
    soft = SoftTargets(torch.randn(tokens, 12), torch.randn(12, VOCAB), torch.randn(VOCAB), share)

    kept = targets != IGNORED
    log_p = F.linear(*inputs)[kept].log_softmax(1)
    predicted = (soft.features[kept] @ soft.weight + soft.bias).softmax(1)
    mixed = (1 - share) * F.one_hot(targets[kept], VOCAB) + share * predicted
    expected = torch.autograd.grad(-(mixed * log_p).sum(), inputs)

    loss = way(*inputs, targets, soft)
    torch.testing.assert_close(loss, F.nll_loss(log_p, targets[kept], reduction="sum"), rtol=1e-5, atol=1e-5)
    for gradient, wanted in zip(torch.autograd.grad(loss, inputs), expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_teachers_that_are_all_but_certain_overflow_nothing(way: Callable[..., Tensor]) -> None:
    features = torch.ones(1, 1, requires_grad=True)
    soft = SoftTargets(torch.ones(1, 1), torch.tensor([[1000.0, -1000.0]]), torch.zeros(2), 0.5)
    way(features, torch.tensor([[1.0], [-1.0]]), torch.zeros(2), torch.tensor([1]), soft).backward()
    assert features.grad is not None
    assert features.grad.item() == pytest.approx(2 * torch.tensor(2.0).sigmoid().item() - 1, abs=1e-6)


def test_what_a_model_predicts_already_teaches_it_nothing() -> None:
    """Each window goes on from the one before: with the wrong state of a teacher, a gradient would be left."""
    settings = student(dropout=0.0, weight_dropout=0.0)
    model = build_model(settings.model_copy(update={"init_range": 0.5}), VOCAB)
    learner = TaughtModel(model, [copy.deepcopy(model), copy.deepcopy(model)], share=1.0)
    state = None
    for window in TEXT[:40].view(4, 5, 2):
        loss, state = learner(window, state, window)
        gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        assert all(gradient.abs().max() < 1e-5 for gradient in gradients)
    own = torch.autograd.grad(model(window, None, window)[0], list(model.parameters()))
    assert max(gradient.abs().max() for gradient in own) > 0.1


def test_the_teachers_say_the_geometric_mean_of_what_each_predicts_without_dropout() -> None:
    settings = student()
    teachers = untrained_teachers(settings)
    learner = TaughtModel(build_model(settings, VOCAB), teachers, share=0.5)
    tokens, soft = TEXT[:20].view(5, 4), []
    learner.model.loss = lambda features, targets, given: soft.append(given) or features.sum()  # type: ignore[method-assign]
    learner.train()(tokens, None, tokens)
    product = torch.stack([teacher.eval()(tokens)[0].softmax(2) for teacher in teachers]).prod(0).sqrt()
    (given,) = soft
    predicted = (given.features @ given.weight + given.bias).softmax(1)
    torch.testing.assert_close(predicted, (product / product.sum(2, keepdim=True)).flatten(0, 1))


def test_training_changes_the_model_alone() -> None:
    settings = student()
    teachers = untrained_teachers(settings)
    before = list(map(weights, teachers))
    training = Training(settings, TEXT, TEXT[:99], VOCAB, teachers)
    training.run_epoch()
    assert all(map(torch.equal, map(weights, teachers), before))
    assert set(training.state_dict()["model"]) == set(build_model(settings, VOCAB).state_dict())
    alone = Training(settings.model_copy(update={"distillation": None}), TEXT, TEXT[:99], VOCAB)
    alone.run_epoch()
    assert not torch.equal(weights(training.model), weights(alone.model))


@pytest.mark.parametrize("taken", [1, 7])
def test_a_training_restored_in_the_middle_of_an_epoch_ends_with_the_same_weights(taken: int) -> None:
    settings = student(random_windows=True)
    whole, half = new_training(settings), new_training(settings)
    whole.run_epoch()

    class KilledError(Exception):
        pass

    def kill() -> None:
        if half.current and half.current.steps == taken:
            raise KilledError

    half.pause = kill  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        half.run_epoch()
    saved = copy.deepcopy(half.state_dict())
    restored = new_training(settings)
    restored.load_state_dict(saved)
    restored.run_epoch()
    assert torch.equal(weights(restored.model), weights(whole.model))


def test_recorded_steps_train_as_those_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for kind in (RecordedOnCPU, None):
        training = new_training(student())

        def changed(training: Training = training) -> list[Tensor]:
            return training.weights_and_buffers()

        recorder = kind and (lambda kind=kind, changed=changed: kind(changed))
        monkeypatch.setitem(table.BACKENDS, "cpu", table.GPU._replace(recorder=recorder))
        for _ in range(2):
            training.run_epoch()
        ends.append(weights(training.model))
    torch.testing.assert_close(*ends, rtol=0, atol=1e-6)  # recorded, an LSTM without gradients sums in another order


def share_with_another(rank: int, folder: Path) -> None:
    """One of two processes that train a model together; both have its teachers."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    training = new_training(student())
    training.run_epoch()
    torch.save(weights(training.model), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_learn_from_the_same_teachers(tmp_path: Path) -> None:
    multiprocessing.spawn(share_with_another, (tmp_path,), nprocs=2)
    alone = new_training(student())
    alone.run_epoch()
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), weights(alone.model), rtol=0, atol=1e-5)


def document(**distillation: Any) -> dict[str, Any]:
    train = small_settings().model_dump()
    own = {"epochs": 9, "distillation": {"share": 0.5, "teachers": [{}]} | distillation}
    return json.loads(default_params()) | {"train": train, "models": {"lstm": own}}


def test_a_teachers_settings_are_laid_over_the_models_own() -> None:
    gru = {"cell": "gru", "optimizer": {"name": "adamw", "weight_decay": 0.1}}
    settings = parse_params(document(teachers=[{}, gru, {"dropout": 0.5}])).model("lstm")
    same, other, dropping = settings.teachers
    assert same == settings.model_copy(update={"distillation": None})
    assert other == Settings.model_validate(overlay(same.model_dump(), gru))
    assert dropping == same.model_copy(update={"dropout": 0.5})
    assert Settings.model_validate(overlay(settings.model_dump(), {})) == settings
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_teachers_that_all_models_share_are_laid_over_each_one() -> None:
    params = document()
    params["train"]["distillation"] = {"share": 0.5, "teachers": [{}, {"dropout": 0.5}]}
    params["models"] = {
        "gru": {"cell": "gru"},
        "lstm": {"distillation": {"share": 0.3}},
        "alone": {"distillation": None},
    }
    models = parse_params(params).models
    assert [(teacher.cell, teacher.dropout) for teacher in models["gru"].teachers] == [("gru", 0.0), ("gru", 0.5)]
    assert [teacher.cell for teacher in models["lstm"].teachers] == ["lstm", "lstm"]
    assert models["lstm"].distillation is not None
    assert models["lstm"].distillation.share == 0.3
    assert models["alone"].teachers == []


def test_the_documented_example_can_be_changed_by_an_experiment() -> None:
    example = re.search(r"```yaml\nmodels:\n(  lstm_dropout:.*?)```", (ROOT / "docs/recipes.md").read_text(), re.DOTALL)
    assert example
    rest = {section: value for section, value in json.loads(default_params()).items() if section != "models"}
    with Path("params.yaml").open("w") as file:
        YAML().dump(rest, file)
        file.write(f"models:\n{example[1]}")
    settings = check(["models.lstm_dropout.distillation.share=0.3"]).model("lstm_dropout")
    assert settings.distillation is not None
    assert settings.distillation.share == 0.3
    assert [teacher.cell for teacher in settings.teachers] == ["lstm", "gru"]


def test_of_a_teacher_only_what_differs_is_told() -> None:
    settings = parse_params(document(teachers=[{}, {"cell": "gru"}])).model("lstm")
    told = {
        "distillation.share": 0.5,
        "distillation.teachers": 2,
        "distillation.teachers.1.cell": "gru",
    }
    for essential in (True, False):
        flat = settings.flat(essential=essential)
        assert {name: value for name, value in flat.items() if name.startswith("distillation")} == told


def test_a_teacher_may_have_teachers() -> None:
    (teacher,) = (
        parse_params(document(teachers=[{"distillation": {"share": 0.2, "teachers": [{}]}}])).model("lstm").teachers
    )
    assert [len(settings.teachers) for settings in (teacher, *teacher.teachers)] == [1, 0]
    assert teacher.teachers[0].epochs == 9


@pytest.mark.parametrize(
    ("distillation", "message"),
    [
        ({"share": 1.5}, "models.lstm.distillation.share = 1.5: input should be less than or equal to 1"),
        ({"share": 0.0}, "models.lstm.distillation.share = 0.0: input should be greater than 0"),
        ({"teachers": []}, r"models.lstm.distillation.teachers = \[\]: .*at least 1"),
        ({"teachers": ["gru"]}, "models.lstm.distillation.teachers.0 = 'gru': expected a group of settings"),
        ({"teachers": [{"epocs": 3}]}, "models.lstm.distillation.teachers.0.epocs: no such setting; did you mean epo"),
        ({"teachers": [{"epochs": -3}]}, "models.lstm.distillation.teachers.0.epochs = -3: input should be greater"),
    ],
)
def test_a_mistake_is_one_clear_line(distillation: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_params(document(**distillation))
    assert "\n" not in str(error.value)


@pytest.fixture
def two_students(empty_store: None) -> None:
    """An LSTM and a GRU that learn from an LSTM and a GRU, with equal settings, and a corpus of three words."""
    teachers = [{"cell": "lstm", "epochs": 1}, {"cell": "gru", "epochs": 1}]
    params = document(teachers=teachers)
    params["train"] = small_settings(epochs=2, hidden_size=4, embedding_size=4).model_dump()
    params["models"] = {name: {"cell": name, "distillation": {"share": 0.5, "teachers": teachers}} for name in CELLS}
    Path("params.yaml").write_text(json.dumps(params))
    write_corpus({split: np.array([1, 2, 0] * 200, np.uint16) for split in SPLITS}, ["<eos>", "a", "b"])


@pytest.mark.usefixtures("two_students")
def test_teachers_are_trained_first_and_once(capsys: pytest.CaptureFixture) -> None:
    train("lstm")
    first = capsys.readouterr().out
    assert first.index("lstm_teacher_1  epoch 1/1") < first.index("lstm_teacher_2  epoch 1/1")
    assert first.index("lstm_teacher_2  epoch 1/1") < first.index("lstm  epoch 1/2")
    train("gru")
    second = capsys.readouterr().out
    assert "gru_teacher_1: was finished after epoch 1" in second
    assert "gru_teacher_2: was finished after epoch 1" in second
    assert len(read_history(history_path("gru"))) == 2
    assert {path.parent.name for path in Path("results").rglob("history.csv")} == {"lstm", "gru"}
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "recurrent-lm")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"lstm", "gru", "lstm_teacher_1", "lstm_teacher_2"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["lstm"].data.params["distillation.teachers.1.cell"] == "gru"
    for number in (1, 2):  # for MLflow's page, which folds them away under their student
        tags = runs[f"lstm_teacher_{number}"].data.tags
        assert (tags["teacher_of"], tags["mlflow.parentRunId"]) == ("lstm", runs["lstm"].info.run_id)
        assert "A teacher of `lstm`." in tags["mlflow.note.content"]
    figures = evaluate_model("lstm")
    assert figures.valid_perplexity == pytest.approx(read_history(history_path("lstm"))[-1].valid_perplexity, rel=1e-6)


@pytest.mark.usefixtures("two_students")
def test_a_model_learns_from_the_best_weights_of_its_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    train("lstm")
    best = []
    for wanted in load_params().model("gru").teachers:
        path = checkpoint_path(TEACHER, fingerprint(wanted, load_corpus().fingerprint))
        saved = load_checkpoint(path)
        assert saved
        saved["best_weights"] = {name: weight + 1 for name, weight in saved["model"].items()}
        save_checkpoint(path, saved)
        best.append(saved["best_weights"])
    given: list[LanguageModel] = []
    learner = Training.learner

    def note(training: Training, teachers: Sequence[LanguageModel]) -> nn.Module:
        given.extend(teachers)
        return learner(training, teachers)

    monkeypatch.setattr(Training, "learner", note)
    train("gru")
    for teacher, wanted_weights in zip(given, best, strict=True):
        assert all(torch.equal(weight, wanted_weights[name]) for name, weight in teacher.state_dict().items())


@pytest.mark.usefixtures("two_students")
@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"batch_size": 600}, r"^lstm_teacher_2: batch_size is 600"),
        ({"learning_rate": 1e6, "max_grad_norm": None, "epochs": 9}, r"^lstm_teacher_2: .*: lower learning_rate"),
    ],
)
def test_a_teachers_fault_is_told_by_its_name(teacher: dict[str, Any], message: str) -> None:
    params = json.loads(Path("params.yaml").read_text())
    params["models"]["lstm"]["distillation"]["teachers"][1] |= teacher
    Path("params.yaml").write_text(json.dumps(params))
    with pytest.raises(UserError, match=message):
        train("lstm")


def test_a_teacher_takes_memory_too() -> None:
    with_teachers = student()
    alone = with_teachers.model_copy(update={"distillation": None})
    more = bytes_of_weights(with_teachers, VOCAB) - bytes_of_weights(alone, VOCAB)
    teachers = sum(num_weights(teacher, VOCAB) for teacher in with_teachers.teachers)
    assert more == 4 * (teachers + 2 * 16 * VOCAB)


def test_the_wrong_number_of_teachers_is_noticed() -> None:
    with pytest.raises(ValueError, match="ask for 2 teachers, and 1 are given"):
        Training(student(), TEXT, TEXT[:99], VOCAB, untrained_teachers(student())[:1])


@pytest.mark.usefixtures("two_students")
def test_a_model_waits_for_a_teacher_that_another_one_is_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    wanted = load_params().model("lstm").teachers[0]
    path = checkpoint_path(TEACHER, fingerprint(wanted, load_corpus().fingerprint))
    with held_until_awaited(path, monkeypatch):
        train("lstm")
    waiting = f"lstm_teacher_1: process {os.getpid()} is training this very model; waiting for it"
    assert waiting in capsys.readouterr().out


@pytest.mark.usefixtures("two_students")
def test_processes_that_share_a_training_do_not_wait_for_a_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first would wait for the teacher, and the others for the first, but not for long."""
    wanted = load_params().model("lstm").teachers[0]
    monkeypatch.setattr(command, "world_size", lambda: 2)
    message = "^process .* is training this very model: wait for it, or stop it"
    path = checkpoint_path(TEACHER, fingerprint(wanted, load_corpus().fingerprint))
    with held_until_awaited(path, monkeypatch), pytest.raises(UserError, match=message):
        train("lstm")


@pytest.mark.usefixtures("two_students")
def test_a_model_with_teachers_is_in_no_sweep() -> None:
    sweep = {"params": "params.yaml", "model": "lstm", "trials": 1, "settings": {"dropout": [0.1, 0.2]}}
    Path("s.yaml").write_text(json.dumps(sweep))
    with pytest.raises(UserError, match=r"s\.yaml: model = 'lstm': one that has teachers cannot be in a sweep"):
        load_sweep(Path("s.yaml"))
