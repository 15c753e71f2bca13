"""MLflow's content, read back through its client from a real store."""

import subprocess
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.reporting.style import COLORS
from pipeline.settings.params import load_params
from pipeline.tracking.appearance import run_name
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.finished import publish
from pipeline.tracking.live import live_run
from pipeline.tracking.publisher import EPOCH_METRICS
from tests.small import default_params
from tests.tracked import CORPUS, FACTS, artifacts, epochs, follow, points, runs, store

pytestmark = pytest.mark.usefixtures("empty_store")

AS_TESTER = ["-c", "user.name=Tester", "-c", "user.email=tester@example.com"]


def test_a_training_is_one_run_with_a_point_an_epoch() -> None:
    Path("params.yaml").write_text("train: {}\n")
    with live_run(FACTS) as tracked:
        for number in (1, 2, 3):
            tracked.publish(epochs(number))
        tracked.end("FINISHED", files=[Path("params.yaml")])
    (run,) = runs()
    assert run.info.run_name == "lstm"
    assert run.info.status == "FINISHED"
    assert points(run, "perplexity/valid") == [(1, 310.0), (2, 155.0), (3, 310.0 / 3)]
    assert set(EPOCH_METRICS) <= set(run.data.metrics)
    assert run.data.params["optimizer.momentum"] == "0.8"
    assert run.data.params["hidden_size"] == "16"
    assert run.data.tags["fingerprint"] == "f1a9"
    assert run.data.tags["device"] == "cpu"
    assert artifacts(run) == {"params.yaml", "packages.txt"}
    (dataset,) = [entry.dataset for entry in run.inputs.dataset_inputs]
    assert CORPUS.fingerprint.startswith(dataset.digest)


@pytest.mark.parametrize(
    ("fault", "status", "why"),
    [(KeyboardInterrupt, "KILLED", "interrupted"), (ValueError, "FAILED", "ValueError: as planned")],
)
def test_a_training_that_stops_early_says_why_and_its_resumption_goes_on_in_the_same_run(
    fault: type[BaseException], status: str, why: str
) -> None:
    follow(epochs(2), fault=fault)
    (run,) = runs()
    assert (run.info.status, run.data.tags["failure"]) == (status, why)

    with live_run(FACTS, epochs(2)) as tracked:
        while all(run.info.status != "RUNNING" for run in runs()):  # opened before it has anything new to tell
            time.sleep(0.1)
        tracked.publish(epochs(4))
        tracked.end("FINISHED")
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert [step for step, _ in points(run, "perplexity/train")] == [1, 2, 3, 4]
    assert "failure" not in run.data.tags


@pytest.mark.parametrize("facts", [FACTS, replace(FACTS, training_id=None)], ids=["by id", "by its epochs"])
def test_a_training_that_ended_or_died_while_mlflow_was_down_is_finished_in_its_run(facts: RunFacts) -> None:
    follow(epochs(2), fault=KeyboardInterrupt)
    publish(facts, epochs(4), [])
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert "failure" not in run.data.tags
    assert [step for step, _ in points(run, "perplexity/valid")] == [1, 2, 3, 4]


def test_a_training_of_the_same_settings_done_again_is_a_run_of_its_own_in_a_colour_of_its_own() -> None:
    Path("params.yaml").write_text(default_params())
    for hour in range(12, 17):
        follow(epochs(1, hour))
    colors = [run.data.tags["mlflow.runColor"] for run in reversed(runs())]
    models = list(load_params().models)
    assert colors[0] == COLORS[models.index("lstm")]
    beside = [*COLORS[: len(models)], *colors[1:]]
    assert min(np.linalg.norm(lab(one) - lab(other)) for one, other in combinations(beside, 2)) > 20


def lab(color: str) -> np.ndarray:
    """A colour in CIELAB, where distances are as one sees them: 2 is just seen, 20 is plain."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    x, y, z = np.cbrt([[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8728]] @ linear)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_a_run_starts_with_its_training_however_late_mlflow_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(client: MlflowClient, *arguments: object) -> Run:
        time.sleep(1)
        return create_run(client, *arguments)

    create_run = MlflowClient.create_run
    monkeypatch.setattr(MlflowClient, "create_run", late)
    before = time.time()
    with live_run(FACTS) as tracked:
        after = time.time()
        tracked.end("FINISHED")
    (run,) = runs()
    assert before - 0.001 <= run.info.start_time / 1000 <= after + 0.001
    assert run.info.end_time - run.info.start_time >= 1000


def test_a_training_of_seconds_has_system_metrics() -> None:
    follow(epochs(1))
    (run,) = runs()
    assert points(run, "system/system_memory_usage_megabytes")[0][1] > 0


def test_a_run_is_named_by_what_differs_from_params_yaml_as_committed() -> None:
    Path("params.yaml").write_text(default_params())
    committed = load_params().models["gru"]
    changed = committed.model_copy(update={"epochs": 3, "dropout": 0.5})
    many = changed.model_copy(update={"bptt": 7, "seed": 2, "batch_size": 3})
    assert run_name("gru", changed, "default") == "gru"  # without git
    for command in (["init", "-q"], ["add", "params.yaml"], [*AS_TESTER, "commit", "-qm", "params"]):
        subprocess.run(["git", *command], check=True)
    assert run_name("gru", committed, "default") == "gru"
    assert run_name("gru", changed, "default") == "gru · dropout 0.5, epochs 3"
    assert run_name("gru", changed, "best") == "gru · recipe best, dropout 0.5, epochs 3"
    assert run_name("gru", many, None) == "gru · dropout 0.5, epochs 3, batch_size 3 and 2 more"
    assert run_name("wide", changed, None) == "wide"


def test_a_training_started_over_leaves_the_run_of_the_one_given_up_as_it_was() -> None:
    follow(epochs(2, 12), fault=KeyboardInterrupt)
    follow(epochs(1, 13))
    new, old = runs()
    assert (old.info.status, new.info.status) == ("KILLED", "FINISHED")
    assert (len(points(old, "perplexity/train")), len(points(new, "perplexity/train"))) == (2, 1)


def test_a_user_without_a_name_is_tracked_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)
    follow(epochs(1))
    (run,) = runs()
    assert "mlflow.user" not in run.data.tags


def test_final_figures_join_the_run_of_their_training() -> None:
    follow(epochs(2))
    publish(FACTS, epochs(2), [], {"test_perplexity": 140.5})
    (run,) = runs()
    assert run.data.metrics["best_test_perplexity"] == 140.5
    assert "metrics.json" in artifacts(run)


def test_a_training_that_mlflow_never_saw_is_restored_with_its_own_times() -> None:
    publish(FACTS, epochs(3), [], {"test_perplexity": 140.5})
    publish(FACTS, epochs(3), [], {"test_perplexity": 140.5})
    (run,) = runs()
    assert run.data.tags["restored"] == "true"
    assert [step for step, _ in points(run, "perplexity/valid")] == [1, 2, 3]
    assert run.info.end_time - run.info.start_time == 3 * 60 * 1000
    history = store().get_metric_history(run.info.run_id, "perplexity/valid")
    assert history[-1].timestamp == run.info.end_time


def test_a_server_that_is_down_holds_nothing_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    follow(epochs(1))
    assert "warning: MLflow is behind" in capsys.readouterr().out
