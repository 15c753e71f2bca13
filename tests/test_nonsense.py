"""A model that is worse than guessing is called that, wherever its figures are shown."""

import subprocess
import sys
from pathlib import Path

from mlflow import MlflowClient
from ruamel.yaml import YAML

from pipeline.artifacts.metrics import worse_than_guessing
from pipeline.demo import workspace_environment
from tests.workspaces import workspace

SAID = "worse than guessing among 81 words"


def test_terminal_report_and_mlflow_call_a_model_nonsense_if_it_is(tmp_path: Path) -> None:
    """That they do not where it is none: `test_pipeline`."""
    folder = workspace(tmp_path / "project", epochs=1)
    yaml = YAML(typ="safe", pure=True)
    params = yaml.load((folder / "params.yaml").read_text())
    params["models"] = {"lstm": {"cell": "lstm", "learning_rate": 20.0}}
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(params, file)
    for command in (["train", "lstm"], ["evaluate", "lstm"], ["report"]):
        done = subprocess.run(
            [sys.executable, "-m", f"pipeline.{command[0]}", *command[1:]],
            cwd=folder,
            env=workspace_environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        if command != ["report"]:
            assert SAID in done.stdout + done.stderr
    assert SAID in (folder / "results/report/report.md").read_text()
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("recurrent-lm").experiment_id])
    assert run.data.tags["warning"] == SAID


def test_a_blind_guess_is_no_worse_than_guessing() -> None:
    assert worse_than_guessing({"valid_perplexity": 81.0, "parameters": 4_000_000}, 81) == ""
    assert worse_than_guessing({"train_perplexity": 1.0, "test_perplexity_dynamic": 81.1}, 81) == SAID
