"""A training that ends early, if asked to, is whole for all that look at it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from pipeline.artifacts.history import history_path, read_history, write_history
from pipeline.artifacts.metrics import Metrics, write_metrics
from pipeline.lm.record import is_whole
from pipeline.project.console import UserError
from pipeline.reporting.results import read_results
from pipeline.restore import restore
from pipeline.settings.params import load_params
from pipeline.train import train
from tests.histories import history
from tests.small import small_settings
from tests.test_nothing_lost import edit_params, project  # noqa: F401 (a fixture)
from tests.test_training import trained


@given(st.lists(st.integers(100, 110).map(float), min_size=1, max_size=20), st.integers(1, 8))
def test_a_training_ends_with_the_first_epoch_that_exhausts_its_patience(valid: list[float], patience: int) -> None:
    records, settings = history(valid), small_settings(epochs=len(valid), patience=patience)
    end = next(n for n in range(1, len(valid) + 1) if is_whole(records[:n], settings))

    def better_in_the_last(n: int) -> bool:
        return n <= patience or min(valid[n - patience : n]) < min(valid[: n - patience])

    assert end == len(valid) or not better_in_the_last(end)
    assert all(better_in_the_last(n) for n in range(1, end))


def test_without_patience_a_training_has_all_its_epochs() -> None:
    rising = history([100.0, 101.0, 102.0, 103.0])
    assert [is_whole(rising[:n], small_settings(epochs=3)) for n in range(5)] == [False, False, False, True, False]
    assert "patience" not in small_settings().essentials()


def test_an_over_fitting_training_ends_after_its_patience() -> None:
    settings = small_settings(learning_rate=5.0, hidden_size=32, epochs=9, patience=2)
    training = trained(settings, epochs=0)
    while not training.finished:
        training.run_epoch()
    valid = [record.valid_perplexity for record in training.history]
    assert len(valid) - 1 - valid.index(min(valid)) == 2
    assert len(valid) < 9


@pytest.mark.usefixtures("empty_store", "project")
def test_its_history_is_whole_for_mlflow_restore_and_report(capsys: pytest.CaptureFixture) -> None:
    edit_params(epochs=50, patience=1, learning_rate=20.0)
    train("lstm")
    epochs = read_history(history_path("lstm"))
    assert len(epochs) < 50
    assert (
        f"lstm: stops here, as validation perplexity has not improved since epoch {len(epochs) - 1}\n"
        in capsys.readouterr().out
    )
    train("lstm")
    assert f"lstm: already finished after epoch {len(epochs)}" in capsys.readouterr().out
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    (run,) = client.search_runs([client.get_experiment_by_name("recurrent-lm").experiment_id])
    assert run.info.status == "FINISHED"

    best = min(epochs, key=lambda record: record.valid_perplexity)
    valid = best.valid_perplexity
    figures = {f"{split}_perplexity": valid for split in ("train", "valid", "test")}
    write_metrics("lstm", Metrics(best_epoch=best.epoch, parameters=1, **figures))
    models = load_params().models
    (result,) = read_results(models)
    assert result.last.epoch == len(epochs)
    assert restore() == ["lstm"]  # its final figures

    write_history(history_path("lstm"), epochs[:-1])
    with pytest.raises(UserError, match="asks for 50, or fewer with a patience of 1: run `dvc repro`"):
        read_results(models)
