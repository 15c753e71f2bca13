"""Notes on MLflow's page: what they say, and that they leave alone what somebody else has written."""

from pathlib import Path

import pytest

from pipeline.artifacts.history import history_path, write_history
from pipeline.artifacts.metrics import Metrics, write_metrics
from pipeline.artifacts.weights import weights_path
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.finished import publish
from pipeline.tracking.notes import NOTE, describe_experiment
from pipeline.tracking.registry import register
from tests.histories import history
from tests.small import default_params, save_small_model
from tests.tracked import CORPUS, VOCABULARY, runs, store

pytestmark = pytest.mark.usefixtures("empty_store")

HISTORY = history([100.0, 90.0, 95.0])
METRICS = Metrics(
    train_perplexity=70.0,
    valid_perplexity=90.0,
    test_perplexity=81.5,
    test_perplexity_dynamic=80.25,
    best_epoch=2,
    parameters=1234,
)


@pytest.fixture(autouse=True)
def three_epochs() -> None:
    Path("params.yaml").write_text(default_params().replace('"epochs": 70', '"epochs": 3'))


def evaluated(metrics: Metrics = METRICS) -> str:
    """What `evaluate` does at its end. Returns the run's note."""
    weights, settings = save_small_model("lstm", VOCABULARY)
    write_history(history_path("lstm"), HISTORY)
    facts = RunFacts("lstm", "f1a9", settings, CORPUS)
    run_id = publish(facts, HISTORY, [history_path("lstm"), weights_path("lstm")], metrics.figures())
    assert run_id
    register(facts, run_id, weights, metrics.valid_perplexity)
    return runs()[0].data.tags[NOTE]


def experiment_note() -> str:
    return store().get_experiment_by_name("recurrent-lm").tags.get(NOTE, "")


def row_of(model: str) -> list[str]:
    """What the note's table has of a model: valid, test, best epoch."""
    lines = [line for line in experiment_note().replace("&emsp;", "").splitlines() if line.startswith("| ")]
    header, *rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    (row,) = [dict(zip(header, row, strict=True)) for row in rows if row[0] == f"`{model}`"]
    return [row[name].strip("*") for name in ("valid", "test", "best epoch")]


def test_a_run_says_what_it_came_to_and_how_to_use_it() -> None:
    note = evaluated()
    first, second, *_ = note.split("\n\n")  # MLflow's page folds the rest away
    assert first.startswith("**Perplexity** of the best weights, those of epoch 2: train 70.00, valid 90.00, ")
    assert "test 81.50 (dynamic 80.25)" in first
    assert "The last epoch has 95.00: `perplexity/valid`" in first
    assert "`python -m pipeline.score lstm my.txt`" in second
    assert f"(get-artifact?path=curve.png&run_uuid={runs()[0].info.run_id})" in note
    assert "MLFLOW_TRACKING_URI=sqlite:///mlflow.db mlflow models serve --model-uri models:/ptb-lstm/1 " in note
    assert "test 81.25" in evaluated(METRICS.model_copy(update={"test_perplexity": 81.25}))


def test_the_experiment_says_what_all_models_came_to() -> None:
    for name in ("lstm", "gru"):
        write_history(history_path(name), HISTORY)
        write_metrics(name, METRICS)
    write_metrics("gru", METRICS.model_copy(update={"best_epoch": 1}))  # of an earlier training
    describe_experiment()
    assert row_of("lstm") == ["90.00", "81.50", "2 of 3"]
    assert "gru" not in experiment_note()
    assert experiment_note().startswith("**Perplexity** on the test text of `ptb`, lower is better: `lstm` 81.50.")
    write_metrics("gru", METRICS)
    describe_experiment()
    assert row_of("gru") == ["90.00", "81.50", "2 of 3"]


def test_a_note_that_somebody_has_written_stays() -> None:
    evaluated()
    for mine in ("mine", "Perplexity is not all that counts here."):
        store().set_tag(runs()[0].info.run_id, NOTE, mine)
        assert evaluated() == mine
    write_metrics("lstm", METRICS)
    describe_experiment()
    experiment = store().get_experiment_by_name("recurrent-lm")
    assert experiment.tags[NOTE]
    store().set_experiment_tag(experiment.experiment_id, NOTE, "ours")
    describe_experiment()
    assert experiment_note() == "ours"


def test_without_mlflow_a_note_costs_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    write_history(history_path("lstm"), HISTORY)
    write_metrics("lstm", METRICS)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    describe_experiment()
    warning = capsys.readouterr().err
    assert warning.startswith("warning: the experiment's note in MLflow is behind: http://127.0.0.1:9 does not answer")
    assert len(warning.splitlines()) == 1
