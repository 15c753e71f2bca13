"""A model that is worse than guessing is called that, wherever its figures are shown."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.artifacts.metrics import worse_than_guessing
from pipeline.evaluate import evaluate_model
from pipeline.project.files import PARAMS, REPORT
from pipeline.report import write_report
from pipeline.train import train
from tests.tracked import runs
from tests.workspaces import workspace

SAID = "worse than guessing among 81 words"


def test_terminal_report_and_mlflow_call_a_model_nonsense_if_it_is(
    empty_store: None, capfd: pytest.CaptureFixture
) -> None:
    """That they do not where it is none: `test_pipeline`."""
    workspace(Path(), epochs=1)
    yaml = YAML(typ="safe", pure=True)
    params = yaml.load(PARAMS.read_text())
    params["models"] = {"lstm": {"cell": "lstm", "learning_rate": 20.0}}
    with PARAMS.open("w") as file:
        yaml.dump(params, file)
    for command in (train, evaluate_model):
        command("lstm")
        assert SAID in "".join(capfd.readouterr())
    write_report()
    assert SAID in (REPORT / "report.md").read_text()
    (run,) = runs()
    assert run.data.tags["warning"] == SAID


def test_a_blind_guess_is_no_worse_than_guessing() -> None:
    assert worse_than_guessing({"valid_perplexity": 81.0, "parameters": 4_000_000}, 81) == ""
    assert worse_than_guessing({"train_perplexity": 1.0, "test_perplexity_dynamic": 81.1}, 81) == SAID
