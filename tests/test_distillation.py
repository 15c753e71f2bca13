"""A model that learns from teachers: its targets, its state, its settings, and the command that trains them all."""

import copy
import json
import os
import re
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Run
from ruamel.yaml import YAML
from torch import Tensor, multiprocessing

from pipeline.artifacts import resumable
from pipeline.artifacts.checkpoint import (
    checkpoint_path,
    delete_checkpoint,
    fingerprint,
    load_checkpoint,
    save_checkpoint,
)
from pipeline.artifacts.history import history_path, read_history
from pipeline.artifacts.teachers import TEACHER, named_teachers
from pipeline.corpus.ids import load_corpus, write_corpus
from pipeline.evaluate import evaluate_model
from pipeline.lm import backend as table
from pipeline.lm.batching import IGNORED
from pipeline.lm.distillation import Teacher, Teachers
from pipeline.lm.loss import ROWS, SoftTargets, linear_cross_entropy, linear_cross_entropy_by_rows
from pipeline.lm.model import LanguageModel, build_model
from pipeline.lm.settings import Settings
from pipeline.lm.training import Training, train_layout
from pipeline.params import check
from pipeline.project.console import UserError
from pipeline.project.files import SPLITS
from pipeline.project.memory import bytes_of_weights
from pipeline.restore import restore
from pipeline.settings.overlay import flattened, overlay
from pipeline.settings.params import load_params, parse_params
from pipeline.sweeps.sweep_file import load_sweep
from pipeline.train import train
from tests.recorder import RecordedOnCPU
from tests.small import ROOT, default_params, small_settings, that_have_read
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
    return Training(settings, TEXT, TEXT[:99], VOCAB, that_have_read(TEXT, settings, untrained_teachers(settings)))


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
    itself = that_have_read(TEXT, settings, [model, model], torch.float32)
    model.train()
    windows, teachers, state = train_layout(TEXT, settings), Teachers(itself, 1.0, torch.float32, TEXT.device), None
    for step, (inputs, targets, _) in enumerate(windows):
        loss, state = model(inputs, state, targets, teachers.soft_targets(*windows.steps(step)))
        gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        assert all(gradient.abs().max() < 1e-5 for gradient in gradients)
    own = torch.autograd.grad(model(inputs, None, targets)[0], list(model.parameters()))
    assert max(gradient.abs().max() for gradient in own) > 0.1


def test_the_teachers_say_the_geometric_mean_of_what_each_predicts_without_dropout() -> None:
    settings = student()
    models = untrained_teachers(settings)
    teachers = Teachers(that_have_read(TEXT, settings, models, torch.float32), 0.5, torch.float32, TEXT.device)
    tokens = train_layout(TEXT, settings)[0].inputs
    given = teachers.soft_targets(0, len(tokens))
    product = torch.stack([model.eval()(tokens)[0].softmax(2) for model in models]).prod(0).sqrt()
    predicted = (given.features @ given.weight + given.bias).softmax(1)
    torch.testing.assert_close(predicted, (product / product.sum(2, keepdim=True)).flatten(0, 1))


@given(st.integers(30, 300), st.integers(1, 9), st.integers(1, 30), st.data())
def test_a_window_wherever_it_is_cut_has_what_teachers_that_run_along_make_of_it(
    length: int, batch_size: int, bptt: int, data: st.DataObject
) -> None:
    settings = student(batch_size=batch_size, bptt=bptt)
    model, text = untrained_teachers(settings)[0].eval(), TEXT[:length]
    teachers = Teachers(that_have_read(text, settings, [model], torch.float32), 0.5, torch.float32, TEXT.device)
    windows = train_layout(text, settings).cut_at(data.draw(st.integers(1, bptt)))
    state = None
    for step, (inputs, _, _) in enumerate(windows):
        with torch.no_grad():
            features, state = model.features(inputs, state)
        kept = teachers.soft_targets(*windows.steps(step)).features
        torch.testing.assert_close(kept, features.flatten(0, 1), rtol=1e-5, atol=1e-6)


def test_half_precision_moves_no_loss_by_a_thousandth() -> None:
    settings = student()
    losses = []
    for dtype in (torch.float16, torch.float32):
        teachers = that_have_read(TEXT, settings, untrained_teachers(settings), dtype)
        losses.append(Training(settings, TEXT, TEXT[:99], VOCAB, teachers).train_epoch(1)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] != losses[1]


def test_training_changes_the_model_alone() -> None:
    settings = student()
    models = untrained_teachers(settings)
    before = list(map(weights, models))
    training = Training(settings, TEXT, TEXT[:99], VOCAB, that_have_read(TEXT, settings, models))
    training.run_epoch()
    assert all(map(torch.equal, map(weights, models), before))
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

    with pytest.raises(KilledError):
        half.run_epoch(kill)
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
    gru = {"cell": "gru", "optimizer": {"name": "adamw", "weight_decay": 0.1}, "learning_rate": 0.01}
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
        flat = flattened(settings, essential=essential)
        assert {name: value for name, value in flat.items() if name.startswith("distillation")} == told


def test_a_teacher_may_have_teachers() -> None:
    (teacher,) = (
        parse_params(document(teachers=[{"distillation": {"share": 0.2, "teachers": [{}]}}])).model("lstm").teachers
    )
    assert [len(settings.teachers) for settings in (teacher, *teacher.teachers)] == [1, 0]
    assert teacher.teachers[0].epochs == 9


def nested(generations: int) -> dict[str, Any]:
    return {"share": 0.2, "teachers": [{"distillation": nested(generations - 1)} if generations else {}]}


@pytest.mark.parametrize(
    ("distillation", "message"),
    [
        *(
            (nested(deep), r"^params\.yaml: models\.lstm\.distillation.*: 3 generations at most: leave some out")
            for deep in (3, 10, 60)
        ),
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
    assert "gru_teacher_1: already finished after epoch 1" in second
    assert "gru_teacher_2: already finished after epoch 1" in second
    assert len(read_history(history_path("gru"))) == 2
    assert {path.parent.name for path in Path("results").rglob("history.csv")} == {"lstm", "gru"}
    assert set(runs()) == {"lstm", "gru", "lstm_teacher_1", "lstm_teacher_2"}
    assert {run.info.status for run in runs().values()} == {"FINISHED"}
    assert runs()["lstm"].data.params["distillation.teachers.1.cell"] == "gru"
    for number in (1, 2):  # for MLflow's page, which folds them away under their student
        tags = runs()[f"lstm_teacher_{number}"].data.tags
        assert (tags["teacher_of"], tags["mlflow.parentRunId"]) == ("lstm", runs()["lstm"].info.run_id)
        note = tags["mlflow.note.content"]  # with a link since "gru" has found it once more
        assert note.startswith(f"**Perplexity** of `lstm_teacher_{number}` by epoch")
        assert f"A teacher of [`lstm`](#/experiments/{runs()['lstm'].info.experiment_id}/runs/" in note
    figures = evaluate_model("lstm")
    assert figures.valid_perplexity == pytest.approx(read_history(history_path("lstm"))[-1].valid_perplexity, rel=1e-6)


def runs() -> dict[str, Run]:
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "recurrent-lm")
    found = client.search_runs([experiment.experiment_id])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


@pytest.mark.usefixtures("two_students")
@pytest.mark.parametrize("later", ["train", "evaluate", "restore"])
def test_a_teachers_run_that_mlflow_missed_is_written_once_and_later(
    later: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as unreachable:
        unreachable.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        train("lstm")
    for _ in range(2):
        {"train": train, "evaluate": evaluate_model, "restore": lambda _: restore()}[later]("lstm")
        assert {run.info.status for run in runs().values()} == {"FINISHED"}
        assert runs().keys() == {"lstm", "lstm_teacher_1", "lstm_teacher_2"}


@pytest.mark.usefixtures("two_students")
def test_a_teachers_run_whose_training_was_killed_at_its_end_is_finished_at_the_next_start() -> None:
    train("lstm")
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    for run in runs().values():
        client.set_terminated(run.info.run_id, "KILLED")
        client.delete_tag(run.info.run_id, "history")
    train("lstm")
    assert {run.info.status for run in runs().values()} == {"FINISHED"}


@pytest.mark.usefixtures("two_students")
def test_the_histories_of_teachers_are_kept_beside_the_models_for_as_long_as_it_has_them() -> None:
    train("lstm")
    folder = Path("results/models/lstm")
    assert [len(read_history(folder / f"teacher_{number}.csv")) for number in (1, 2)] == [1, 1]
    params = json.loads(Path("params.yaml").read_text())
    del params["models"]["lstm"]["distillation"]["teachers"][1]
    Path("params.yaml").write_text(json.dumps(params))
    train("lstm")
    assert [path.name for path in folder.glob("teacher_*")] == ["teacher_1.csv"]


def features() -> list[Path]:
    return sorted(Path(".checkpoints").glob("*.features"))


@pytest.mark.usefixtures("two_students")
def test_what_teachers_make_of_the_text_is_shared_and_goes_with_their_checkpoints() -> None:
    train("lstm")
    kept = {path: path.stat().st_mtime_ns for path in features()}
    assert len(kept) == 2
    train("gru")
    assert {path: path.stat().st_mtime_ns for path in features()} == kept
    delete_checkpoint(features()[0].with_name(f"{features()[0].name.split('.')[0]}.pt"))
    assert len(features()) == 1
    for checkpoint in Path(".checkpoints").glob(f"{TEACHER}-*.pt"):
        checkpoint.unlink()
    left = Path(".checkpoints") / f"{TEACHER}-of-other-settings.4.features"
    left.touch()
    train("lstm")
    assert len(features()) == 2
    assert not left.exists()


@pytest.mark.usefixtures("two_students")
def test_features_that_are_damaged_are_made_anew() -> None:
    train("lstm")
    (path, _), content = features(), features()[0].read_bytes()
    for damaged in (content[:-1], b"", content[:100] + bytes([content[100] ^ 1]) + content[101:]):
        path.write_bytes(damaged)
        train("lstm")
        assert path.read_bytes() == content


@pytest.mark.usefixtures("two_students")
def test_a_disk_without_room_for_what_teachers_make_of_the_text_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000))
    with pytest.raises(UserError, match=r"^lstm: the features of its teachers take 9\.6 kB in .*, where 1 kB are free"):
        train("lstm")
    assert not Path(".checkpoints").exists()


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
    given: list[Teacher] = []

    def note(teachers: Sequence[Teacher], *others: Any) -> Teachers:
        given.extend(teachers)
        return Teachers(teachers, *others)

    monkeypatch.setattr("pipeline.lm.training.Teachers", note)
    train("gru")
    text = load_corpus().train
    for teacher, wanted, its_weights in zip(given, load_params().model("gru").teachers, best, strict=True):
        model = build_model(wanted, 3)
        model.load_state_dict(its_weights)
        (expected,) = that_have_read(text, load_params().model("gru"), [model])
        assert all(map(torch.equal, teacher, expected))


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
    assert more == 4 * 2 * 16 * VOCAB


def test_the_wrong_number_of_teachers_is_noticed() -> None:
    one = that_have_read(TEXT, student(), untrained_teachers(student())[:1])
    with pytest.raises(AssertionError):
        Training(student(), TEXT, TEXT[:99], VOCAB, one)


@pytest.mark.usefixtures("two_students")
def test_a_model_waits_for_a_teacher_that_another_one_is_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    wanted = load_params().model("lstm").teachers[0]
    path = checkpoint_path(TEACHER, fingerprint(wanted, load_corpus().fingerprint))
    with held_until_awaited(path, monkeypatch):
        train("lstm")
    waiting = f"lstm_teacher_1: process {os.getpid()} is already training this model; waiting for it"
    assert waiting in capsys.readouterr().out


@pytest.mark.usefixtures("two_students")
def test_processes_that_share_a_training_do_not_wait_for_a_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first would wait for the teacher, and the others for the first, but not for long."""
    wanted = load_params().model("lstm").teachers[0]
    monkeypatch.setattr(resumable, "world_size", lambda: 2)
    message = "^process .* is already training this model: wait for it, or stop it"
    path = checkpoint_path(TEACHER, fingerprint(wanted, load_corpus().fingerprint))
    with held_until_awaited(path, monkeypatch), pytest.raises(UserError, match=message):
        train("lstm")


@pytest.mark.usefixtures("two_students")
def test_teachers_are_evaluated_each_by_itself_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/experiments/teachers.py, of which the pages have the teachers' figures."""
    script = runpy.run_path(str(ROOT / "docs/experiments/teachers.py"))
    monkeypatch.setattr("sys.argv", ["teachers.py", "lstm"])
    with pytest.raises(UserError, match=r"^lstm_teacher_1 has not been trained here: train the model that it teaches"):
        script["main"]()
    train("lstm")
    script["main"]()
    runs = Path("docs/experiments/runs")
    for number in (1, 2):
        history = read_history(runs / f"teacher-{number}.csv")
        assert history == read_history(Path(f"results/models/lstm/teacher_{number}.csv"))
        figures = json.loads((runs / f"teacher-{number}.json").read_text())
        assert figures["valid_perplexity"] == pytest.approx(history[0].valid_perplexity, rel=1e-5)

    corpus, logits = load_corpus(), []
    words = corpus.test.long()
    for title, settings in named_teachers("lstm", load_params().models["lstm"]):
        teacher, _ = script["trained"](title, settings, corpus)
        logits.append(teacher(words[:-1, None], None)[0])
    together = F.cross_entropy(sum(F.log_softmax(of, -1) for of in logits)[:, 0] / 2, words[1:])
    assert json.loads((runs / "teachers.json").read_text())["test_perplexity"] == pytest.approx(together.exp().item())


@pytest.mark.usefixtures("two_students")
def test_a_model_with_teachers_is_in_a_sweep_without_them() -> None:
    sweep = {"params": "params.yaml", "model": "lstm", "trials": 1, "settings": {"dropout": [0.1, 0.2]}}
    Path("s.yaml").write_text(json.dumps(sweep))
    with pytest.raises(UserError, match=r"s\.yaml: the model has teachers, .*: add `distillation: null`") as fault:
        load_sweep(Path("s.yaml"))
    assert "\n" not in str(fault.value)
    sweep["settings"]["distillation"] = None
    Path("s.yaml").write_text(json.dumps(sweep))
    untaught = load_params().model("lstm").model_copy(update={"distillation": None, "dropout": 0.2})
    loaded = load_sweep(Path("s.yaml"))
    assert loaded.source.settings(loaded.space, {"dropout": 0.2}, loaded.path) == untaught
