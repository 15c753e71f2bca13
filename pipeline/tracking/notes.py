"""The notes that MLflow shows: a run's figures and how to use it; the experiment's results beside the course report's.

A note that somebody has rewritten is left alone: only those that start as ours do are updated.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.artifacts.metrics import read_corpus_sizes
from pipeline.project.console import UserError, warn
from pipeline.project.files import REPORT, SPLITS
from pipeline.project.params import load_params
from pipeline.reporting.course_report import figures_beside
from pipeline.reporting.results import Result, read_results
from pipeline.tracking.deadline import within
from pipeline.tracking.faults import explain
from pipeline.tracking.location import locate
from pipeline.tracking.picture import PICTURE
from pipeline.tracking.store import connect

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient

NOTE = "mlflow.note.content"
OPENING = "**Perplexity**"


def describe_run(client: "MlflowClient", run_id: str, model: str) -> bool:
    """Update a run's note from what MLflow knows about the run. Returns whether anything changed."""
    run = client.get_run(run_id)
    figures, files = run.data.metrics, {file.path for file in client.list_artifacts(run_id)}
    blocks = []
    if all(f"{split}_perplexity" in figures for split in SPLITS):
        names = [name for split in SPLITS for name in _present(figures, split)]
        row = [
            *(f"{figures[name]:.2f}" for name in names),
            *(f"{figures[name]:,.0f}" for name in ("best_epoch", "parameters")),
        ]
        header = [*(name.replace("_perplexity", "").replace("_", ", ") for name in names), "best epoch", "parameters"]
        blocks.append(_table(header, [row]))
    for version in client.search_model_versions(f"run_id = '{run_id}'", max_results=1):
        serve = f"mlflow models serve --model-uri models:/{version.name}/{version.version}"
        blocks.append(
            f"```sh\npython -m pipeline.score {model} my.txt  # with the weights in results/models\n"
            f"MLFLOW_TRACKING_URI={locate().command_address} {serve} --env-manager local --port 5001\n```"
        )
    if PICTURE in files:
        blocks.append(f"![Perplexity by epoch](get-artifact?path={PICTURE}&run_uuid={run_id})")
    if not blocks:
        return False
    note = "\n\n".join([f"{OPENING} of `{model}`, lower is better.", *blocks])
    if (old := run.data.tags.get(NOTE, OPENING)) == note or not old.startswith(OPENING):
        return False
    client.set_tag(run_id, NOTE, note)
    return True


def describe_experiment() -> None:
    """Update the experiment's note from the result files. If MLflow fails, that becomes a warning."""
    if not (results := _results()):
        return
    note = experiment_note(results)

    def write() -> None:
        client, experiment_id = connect()
        old = client.get_experiment(experiment_id).tags.get(NOTE, OPENING)
        if old != note and old.startswith(OPENING):
            client.set_experiment_tag(experiment_id, NOTE, note)

    try:
        within(write)
    except Exception as error:
        warn(f"the experiment's note in MLflow is behind: {explain(error)}; the next stage or `make ui` renews it")


def experiment_note(results: Sequence[Result]) -> str:
    """The table of results, next to the course report's if both are for the same corpus and models."""
    try:
        course_report = figures_beside(results, read_corpus_sizes(), load_params().report.course_report or {})
    except UserError:
        course_report = {}
    header, rows = ["model", "valid", "test", "best epoch"], []
    for result in results:
        metrics = result.metrics
        row = [f"`{result.name}`", f"{metrics.valid_perplexity:.2f}", f"{metrics.test_perplexity:.2f}"]
        row.append(f"{metrics.best_epoch} of {result.last.epoch}")
        if course_report:
            reference = course_report.get(result.name)
            row += [f"{reference.valid:.2f}", f"{reference.test:.2f}"] if reference else ["-", "-"]
        rows.append(row)
    if course_report:
        header += ["course report, valid", "course report, test"]
    title = f"{OPENING} of the weights of the best epoch, lower is better; more in `{REPORT / 'report.md'}`."
    return f"{title}\n\n{_table(header, rows)}"


def _results() -> list[Result]:
    """The complete and up-to-date results of the models in params.yaml."""
    results = []
    try:
        models = load_params().models
    except UserError:
        return []
    for name, settings in models.items():
        try:
            results += read_results({name: settings})
        except UserError:
            continue
    return results


def _present(figures: dict[str, float], split: str) -> list[str]:
    kinds = ("", "_tempered", "_dynamic")
    return [name for kind in kinds if (name := f"{split}_perplexity{kind}") in figures]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---", *["---:"] * (len(header) - 1)], *rows])
