"""Finished work survives whatever happens before DVC records it; damage and edits are noticed."""

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML

from pipeline import evaluate
from pipeline.artifacts.checkpoint import (
    checkpoint_path,
    fingerprint,
    load_checkpoint,
    release,
    save_checkpoint,
    training_id,
)
from pipeline.artifacts.history import history_path, read_history, write_history
from pipeline.artifacts.metrics import metrics_path, read_metrics
from pipeline.artifacts.resumable import ResumableTraining, resumable
from pipeline.artifacts.weights import load_weights, read_description, weights_path
from pipeline.corpus.ids import Corpus, load_corpus, write_corpus
from pipeline.demo import workspace_environment
from pipeline.evaluate import CODE_OF_EVALUATION, evaluate_model, evaluation_inputs
from pipeline.lm.step import train_step
from pipeline.project.console import UserError
from pipeline.project.files import SPLITS, sha256
from pipeline.project.inputs import FixedInputs, Inputs
from pipeline.settings.params import load_params
from pipeline.tracking import live
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.finished import publish
from pipeline.tracking.live import live_run
from pipeline.train import train, training_inputs
from tests.histories import history
from tests.small import committed_document, save_small_model, small_settings
from tests.tracked import runs, store
from tests.workspaces import held_until_awaited, workspace

yaml = YAML(typ="safe", pure=True)
FLIPS = 60


def edit_params(**overrides: Any) -> None:
    params = yaml.load(Path("params.yaml").read_text())
    params["models"]["lstm"] |= overrides
    with open("params.yaml", "w") as file:
        yaml.dump(params, file)


@pytest.fixture
def project(empty_store: None) -> None:
    """Small settings of one model, and a corpus of three words, in the working folder."""
    params = committed_document()
    params["train"] = small_settings(epochs=2, hidden_size=4, embedding_size=4).model_dump()
    params["models"] = {"lstm": {"cell": "lstm"}}
    params["evaluate"] = {"dynamic": None}
    params["report"] = {"course_report": None}
    with open("params.yaml", "w") as file:
        yaml.dump(params, file)
    words = {split: np.array([1, 2, 0] * 200, np.uint16) for split in SPLITS}
    write_corpus(words, ["<eos>", "a", "b"])


def checkpoints() -> list[Path]:
    return list(Path(".checkpoints").glob("*.pt"))


def flip_a_bit(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def some_checkpoint() -> Path:
    path = Path("lstm-1234.pt")
    save_checkpoint(path, {"weights": {"a": load_weights(some_weights()).model.embedding.weight.detach()}})
    return path


def some_weights() -> Path:
    return save_small_model("lstm", ("<eos>", "a", "b"), hidden_size=2, embedding_size=2)[0]


def some_ids() -> Path:
    ids = np.array([1, 2, 0] * 40, np.uint16)
    write_corpus(dict.fromkeys(SPLITS, ids), ["<eos>", "a", "b"])
    return Path("data/processed/train.npy")


def some_vocabulary() -> Path:
    return some_ids().with_name("vocabulary.txt")


@pytest.mark.parametrize(
    ("write", "load"),
    [
        (some_checkpoint, load_checkpoint),
        (some_weights, load_weights),
        (some_ids, lambda _: load_corpus()),
        (some_vocabulary, lambda _: load_corpus()),
    ],
    ids=["checkpoint", "weights", "ids", "vocabulary"],
)
def test_no_flipped_bit_goes_unnoticed(write: Callable[[], Path], load: Callable[[Path], object]) -> None:
    path = write()
    load(path)
    content, chance = path.read_bytes(), random.Random(1)
    for _ in range(FLIPS):
        path.write_bytes(content)
        flip_a_bit(path, chance)
        with pytest.raises(UserError) as error:
            load(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("before", "after"), [(rb"\"a\"", rb"\"c\""), (rb"\"seed\": 1", rb"\"seed\": 2")])
def test_a_changed_word_or_setting_of_the_weights_is_noticed(before: bytes, after: bytes) -> None:
    path = some_weights()
    content = path.read_bytes()
    assert content.count(before) == 1
    path.write_bytes(content.replace(before, after))
    with pytest.raises(UserError, match="its SHA-256 does not match"):
        load_weights(path)


@pytest.mark.usefixtures("project")
def test_deleted_results_of_a_finished_training_run_are_written_again_without_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train("lstm")
    results = [weights_path("lstm"), history_path("lstm")]
    before = [sha256(path) for path in results]
    for path in results:
        path.unlink()  # as DVC does before it runs a stage again
    monkeypatch.setattr(ResumableTraining, "run_epoch", None)
    train("lstm")
    assert [sha256(path) for path in results] == before
    (run,) = runs()
    assert run.info.status == "FINISHED"


def record(model: str, files: list[Path]) -> None:
    """Write dvc.lock as if DVC had recorded these results of a training."""
    outs = [{"path": path.as_posix(), "md5": hashlib.md5(path.read_bytes()).hexdigest()} for path in files]
    with open("dvc.lock", "w") as file:
        yaml.dump({"schema": "2.0", "stages": {f"train@{model}": {"outs": outs}}}, file)


@pytest.mark.usefixtures("project")
def test_metrics_name_the_gpu_that_a_model_was_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    train("lstm")
    assert read_description(weights_path("lstm")).gpu is None
    monkeypatch.setattr(ResumableTraining, "gpu", "NVIDIA H100, 79 GiB")
    train("lstm")  # writes its results again
    metrics = evaluate_model("lstm")
    assert read_metrics("lstm").gpu == "NVIDIA H100, 79 GiB"
    assert "gpu" not in metrics.figures()


@pytest.mark.usefixtures("project")
def test_a_checkpoint_stays_until_dvc_has_recorded_the_results() -> None:
    train("lstm")
    release("lstm")
    assert checkpoints()
    weights, records = weights_path("lstm"), history_path("lstm")
    for recorded in ([weights], [records]):
        record("lstm", recorded)
        release("lstm")
        assert checkpoints()
    record("lstm", [weights, records])
    evaluate_model("lstm")
    assert not checkpoints()
    assert len(runs()) == 1


@pytest.mark.usefixtures("project")
def test_an_interrupt_in_the_middle_of_a_step_waits_for_its_end_and_loses_no_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    steps = 0

    def counted(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps in interrupts:
            signal.raise_signal(interrupts[steps])
        return train_step(*arguments)

    def result() -> tuple[str, list[tuple[float, ...]]]:
        epochs = read_history(history_path("lstm"))
        return sha256(weights_path("lstm")), [(r.train_perplexity, r.valid_perplexity, r.grad_norm) for r in epochs]

    monkeypatch.setattr("pipeline.lm.training.train_step", counted)
    interrupts: dict[int, signal.Signals] = {}
    train("lstm")
    undisturbed, whole = result(), steps
    shutil.rmtree(".checkpoints")

    interrupts, steps = {7: signal.SIGINT, 20: signal.SIGTERM, whole // 2 + 5: signal.SIGHUP}, 0
    before = {number: signal.signal(number, signal.default_int_handler) for number in interrupts.values()}
    try:
        for _ in interrupts:
            with pytest.raises(KeyboardInterrupt):
                train("lstm")
        train("lstm")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (result(), steps) == (undisturbed, whole)
    assert "lstm: continuing after step 20 of epoch 1\n" in capsys.readouterr().out
    again, _ = runs()
    client = store()
    assert [p.step for p in client.get_metric_history(again.info.run_id, "perplexity/valid")] == [1, 2]
    assert again.info.status == "FINISHED"


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("seconds_to_write", "steps"), [(0, [7, 13, 19, 25, 30]), (0.125, [7, 20]), (1, [7])])
def test_checkpoints_are_written_at_intervals_and_less_often_if_that_takes_long(
    seconds_to_write: float, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, saved, taken = 0.0, [], 0
    monkeypatch.setattr("pipeline.artifacts.resumable.time.monotonic", lambda: now)

    def step_of_a_second() -> None:  # validation takes none
        nonlocal now, taken
        now += training.steps_taken - taken
        taken = training.steps_taken

    def save(path: Path, state: dict[str, Any]) -> None:
        nonlocal now
        now += seconds_to_write
        saved.append(state["current"] and state["current"]["steps"])

    monkeypatch.setattr("pipeline.artifacts.resumable.save_checkpoint", save)
    with resumable("lstm", load_params().model("lstm"), load_corpus(), checkpoint_minutes=0.1) as training:
        training.run_epoch(step_of_a_second)
    assert saved == [*steps, None]


@pytest.mark.usefixtures("project")
def test_settings_edited_during_training_are_not_recorded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run_epoch = ResumableTraining.run_epoch
    start = Path("params.yaml").read_text()

    def edited_meanwhile(training: ResumableTraining, *arguments: Any) -> Any:
        edit_params(dropout=0.5)
        return run_epoch(training, *arguments)

    monkeypatch.setattr(ResumableTraining, "run_epoch", edited_meanwhile)
    with pytest.raises(UserError, match=r"^lstm: params\.yaml edited while this ran"):
        train("lstm")
    assert capsys.readouterr().err.count("params.yaml edited: this run continues") == 1
    with pytest.raises(UserError, match=r"other settings than params\.yaml's: run `dvc repro train@lstm`"):
        evaluate_model("lstm")
    (run,) = runs()
    assert run.data.params["dropout"] == "0.0"
    assert Path(run.info.artifact_uri.removeprefix("file://"), "params.yaml").read_text() == start

    Path("params.yaml").write_text(start)
    monkeypatch.setattr(ResumableTraining, "run_epoch", None)
    train("lstm")  # what it trained was kept
    evaluate_model("lstm")
    assert len(runs()) == 1


@pytest.mark.usefixtures("project")
def test_an_edit_right_after_the_settings_were_read_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def edited_meanwhile() -> Corpus:
        edit_params(dropout=0.5)
        return load_corpus()

    monkeypatch.setattr("pipeline.train.load_corpus", edited_meanwhile)
    with pytest.raises(UserError, match=r"^lstm: params\.yaml edited while this ran"):
        train("lstm")


@pytest.mark.usefixtures("project")
def test_an_edit_during_evaluation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    train("lstm")
    monkeypatch.setattr("pipeline.evaluate.register", lambda *_: history_path("lstm").write_text("edited"))
    monkeypatch.setattr(sys, "argv", ["evaluate", "lstm"])
    with pytest.raises(UserError, match=r"^evaluate lstm: results/models/lstm/history\.csv edited while this ran"):
        evaluate.main()


def write(path: str, text: str = "edited = True") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def evaluate_dynamically() -> None:
    params = yaml.load(Path("params.yaml").read_text())
    params["evaluate"]["dynamic"] = {"lstm": {"learning_rate": 0.1, "decay": 0.1, "epsilon": 0.1, "bptt": 5}}
    with open("params.yaml", "w") as file:
        yaml.dump(params, file)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("inputs", "edit", "place"),
    [
        *(
            (inputs, edit, place)
            for inputs in (training_inputs, evaluation_inputs)
            for edit, place in [
                (partial(edit_params, dropout=0.5), "params.yaml"),
                (some_ids, "data/processed"),
                (partial(write, "code/model.py"), "pipeline/lm"),
                # which can no longer be read
                (partial(edit_params, dropuot=0.5), "an input (params.yaml: models.lstm.dropuot: no such setting"),
                (partial(write, "code/model.py", "def half"), "an input ("),
                (Path("data/processed/train.npy").unlink, "an input (data/processed/train.npy not found"),
            ]
        ),
        (evaluation_inputs, evaluate_dynamically, "params.yaml"),
        *(
            (evaluation_inputs, partial(write, place), place)
            for place in (
                "results/models/lstm/model.safetensors",
                "results/models/lstm/history.csv",
                *(path.as_posix() for path in CODE_OF_EVALUATION),
            )
        ),
    ],
)
def test_every_input_of_a_stage_is_watched(
    inputs: Callable[[str], Inputs], edit: Callable[[], object], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in ("train", "evaluate"):
        monkeypatch.setattr(f"pipeline.{stage}.CODE", Path("code"))
    with FixedInputs("stage", partial(inputs, "lstm")):
        pass
    with pytest.raises(UserError, match=rf"^stage: {re.escape(place)}.* edited while this ran"):  # noqa: SIM117
        with FixedInputs("stage", partial(inputs, "lstm")):
            edit()


@pytest.mark.usefixtures("project")
def test_weights_of_another_corpus_are_not_evaluated() -> None:
    train("lstm")
    write_corpus(dict.fromkeys(SPLITS, np.array([1, 2, 0], np.uint16)), ["<eos>", "a", "c"])
    with pytest.raises(UserError, match=r"was trained on another corpus: run `dvc repro train@lstm`"):
        evaluate_model("lstm")


@pytest.mark.usefixtures("project")
def test_a_corpus_that_changes_during_training_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    run_epoch = ResumableTraining.run_epoch

    def preprocessed_meanwhile(training: ResumableTraining, *arguments: Any) -> Any:
        write_corpus({split: np.array([2, 1, 0] * 200, np.uint16) for split in SPLITS}, ["<eos>", "a", "b"])
        return run_epoch(training, *arguments)

    monkeypatch.setattr(ResumableTraining, "run_epoch", preprocessed_meanwhile)
    with pytest.raises(UserError, match=r"^lstm: data/processed edited while this ran"):
        train("lstm")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    "refused", ["pipeline.reporting.curves.curve", "pipeline.tracking.publisher.TemporaryDirectory"]
)
def test_a_picture_that_cannot_be_drawn_costs_no_result(
    refused: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(refused, full)
    train("lstm")
    assert capsys.readouterr().err.count("no picture of this training run: [Errno 28]") == 1
    (run,) = runs()
    assert run.info.status == "FINISHED"


@pytest.mark.usefixtures("empty_store")
def test_two_trainings_of_the_same_settings_at_the_same_time_are_two_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "GRACE_SECONDS", 200.0)  # a busy machine is not what is tested
    first, second = (RunFacts("lstm", "f1a9", small_settings(), training_id=name) for name in ("a", "b"))
    ours = history([300.0, 200.0])
    theirs = [replace(record, seconds=record.seconds + 0.001) for record in history([310.0, 210.0])]
    with live_run(first) as one, live_run(second) as other:
        for number in (1, 2):
            one.publish(ours[:number])
            other.publish(theirs[:number])
        one.end("FINISHED")
        other.end("FINISHED")
    assert len(runs()) == 2
    for epochs in (ours, theirs):
        publish(RunFacts("lstm", "f1a9", small_settings()), epochs, [])
    client = store()
    points = [client.get_metric_history(run.info.run_id, "perplexity/valid") for run in runs()]
    assert sorted([point.value for point in series] for series in points) == [[300.0, 200.0], [310.0, 210.0]]


def test_every_training_run_has_an_id_and_keeps_it() -> None:
    here, there = (Path(clone) / "lstm-f1a9.pt" for clone in ("here", "there"))  # of the same settings
    assert training_id(here) is None
    drawn = training_id(here, create=True)
    assert training_id(there, create=True) != drawn
    assert training_id(here, create=True) == training_id(here) == drawn
    here.with_suffix(".id").write_bytes(b"\xff\n")
    with pytest.raises(UserError, match=r"lstm-f1a9\.id is damaged: delete it"):
        training_id(here)


@pytest.mark.usefixtures("project")
def test_an_unfinished_training_run_is_not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    run_epoch = ResumableTraining.run_epoch

    def interrupted_in_the_second(training: ResumableTraining, *arguments: Any) -> Any:
        if training.history:
            raise KeyboardInterrupt
        return run_epoch(training, *arguments)

    edit_params(epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(ResumableTraining, "run_epoch", interrupted_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            train("lstm")
    with pytest.raises(UserError, match=r"history\.csv has 1 of 2 epochs: finish the training first"):
        evaluate_model("lstm")
    train("lstm")
    evaluate_model("lstm")


@pytest.mark.usefixtures("project")
def test_weights_and_history_of_different_training_runs_are_not_evaluated() -> None:
    train("lstm")
    records = read_history(history_path("lstm"))
    write_history(history_path("lstm"), [replace(one, valid_perplexity=one.valid_perplexity + 1) for one in records])
    with pytest.raises(UserError, match=r"model\.safetensors has validation perplexity .*history\.csv: run `dvc repro"):
        evaluate_model("lstm")
    assert not metrics_path("lstm").exists()


@pytest.mark.usefixtures("project")
def test_a_training_run_interrupted_in_its_first_epoch_stays_one_mlflow_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResumableTraining, "run_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train("lstm")
    train("lstm")
    (run,) = runs()
    assert run.info.status == "FINISHED"


@pytest.mark.usefixtures("project")
def test_training_waits_for_another_process_that_is_training_the_same_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As right after a kill, when the other process is still writing its last checkpoint."""
    path = checkpoint_path("lstm", fingerprint(load_params().model("lstm"), load_corpus().fingerprint))
    with held_until_awaited(path, monkeypatch):
        train("lstm")
    assert f"lstm: process {os.getpid()} is already training this model; waiting for it" in capsys.readouterr().out
    assert len(read_history(history_path("lstm"))) == 2


def made_store(folder: Path) -> Path:
    """MLflow's database once the training run in a folder has made it; a client would make one of its own."""
    while not (path := folder / "mlflow.db").exists():
        time.sleep(0.1)
    return path


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_training_ends_with_the_dvc_process_that_started_it(ending: signal.Signals, tmp_path: Path) -> None:
    folder = workspace(tmp_path / "work", epochs=2000)
    command = [sys.executable, "-m", "dvc", "repro", "train@lstm"]
    environment = workspace_environment() | {"PYTHONUNBUFFERED": "1"}
    dvc = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    while "tokens/s" not in dvc.stdout.readline():  # the first epoch's line
        assert dvc.poll() is None
    client = MlflowClient(f"sqlite:///{made_store(folder)}")
    while not runs(client):
        time.sleep(0.1)
    holder = next((folder / ".checkpoints").glob("lstm-*.holder"))
    training = psutil.Process(int(holder.read_text()))
    os.kill(dvc.pid, ending)
    dvc.wait()
    training.wait(60)
    (run,) = runs(client)
    assert run.info.status == "KILLED"
    assert list((folder / ".checkpoints").glob("lstm-*.pt"))
