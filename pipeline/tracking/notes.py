"""The notes that MLflow shows: a run's figures and how to use it; the experiment's results beside the course report's.

A note that somebody has rewritten is left alone: only those that start as ours do are updated.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.artifacts.metrics import read_corpus_sizes
from pipeline.project.console import UserError, warn
from pipeline.project.files import REPORT, SPLITS
from pipeline.reporting.course_report import figures_beside
from pipeline.reporting.results import Result, read_results
from pipeline.settings.params import load_params
from pipeline.tracking.charts import save_view
from pipeline.tracking.deadline import within
from pipeline.tracking.facts import shown
from pipeline.tracking.faults import explain
from pipeline.tracking.location import locate
from pipeline.tracking.picture import PICTURE
from pipeline.tracking.store import connect
from pipeline.tracking.teachers import PARENT, TEACHER_OF

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient
    from mlflow.entities import Run

NOTE = "mlflow.note.content"
OPENING = "**Perplexity**"
KINDS = ("tempered", "dynamic")


def describe_run(client: "MlflowClient", run_id: str) -> bool:
    """Update a run's note from what MLflow knows about the run. Returns whether anything changed.

    MLflow shows the first lines of it, and the rest when asked to.
    """
    run = client.get_run(run_id)
    model = run.data.tags["model"]
    files = {file.path for file in client.list_artifacts(run_id)}
    versions = client.search_model_versions(f"run_id = '{run_id}'", max_results=1)
    figures, teaching = _figures(run), _teaching(run)
    if not (figures or teaching or versions or PICTURE in files):
        return False
    blocks = [f"{OPENING}{figures or f' of `{model}` by epoch, lower is better.'}{teaching}"]
    if versions:
        blocks.append(f"`python -m pipeline.score {model} my.txt` scores a text with the weights in `results/models`.")
    if PICTURE in files:
        blocks.append(f"![Perplexity by epoch](get-artifact?path={PICTURE}&run_uuid={run_id})")
    for version in versions:
        uri = f"models:/{version.name}/{version.version}"
        serve = f"mlflow models serve --model-uri {uri} --env-manager local --port 5001"
        store = f"MLFLOW_TRACKING_URI={locate().command_address}"
        blocks.append(f"Over HTTP, as `docs/use.md` shows:\n\n```sh\n{store} {serve}\n```")
    note = "\n\n".join(blocks)
    if (old := run.data.tags.get(NOTE, OPENING)) == note or not old.startswith(OPENING):
        return False
    client.set_tag(run_id, NOTE, note)
    return True


def _figures(run: "Run") -> str:
    """What the best weights came to, and what MLflow's table has beside it; empty until they are evaluated."""
    metrics = run.data.metrics
    if not all(shown(f"{split}_perplexity") in metrics for split in SPLITS):
        return ""
    parts = []
    for split in SPLITS:
        name = shown(f"{split}_perplexity")
        others = [f"{kind} {metrics[other]:.2f}" for kind in KINDS if (other := f"{name}_{kind}") in metrics]
        parts.append(f"{split} {metrics[name]:.2f}" + (f" ({', '.join(others)})" if others else ""))
    weights = f" of the best weights, those of epoch {metrics['best_epoch']:.0f}: {', '.join(parts)}."
    last = metrics.get("perplexity/valid")
    return f"{weights} (The last epoch came to {last:.2f}: `perplexity/valid`.)" if last else weights


def _teaching(run: "Run") -> str:
    if not (student := run.data.tags.get(TEACHER_OF)):
        return ""
    page = run.data.tags.get(PARENT)
    name = f"[`{student}`](#/experiments/{run.info.experiment_id}/runs/{page})" if page else f"`{student}`"
    return f" A teacher of {name}."


def describe_experiment() -> None:
    """Update the experiment's note from the result files, and its view. If MLflow fails, that becomes a warning."""
    if not (results := _results()):
        return
    note = experiment_note(results)

    def write() -> None:
        client, experiment_id = connect()
        experiment = client.get_experiment(experiment_id)
        save_view(client, experiment)
        old = experiment.tags.get(NOTE, OPENING)
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
    tests = ", ".join(f"`{result.name}` {result.metrics.test_perplexity:.2f}" for result in results)
    more = f"Of the weights of the best epoch; more in `{REPORT / 'report.md'}`."
    return f"{OPENING} on the test text, lower is better: {tests}.\n\n{_table(header, rows)}\n\n{more}"


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


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with room between its columns, which MLflow's page leaves none."""
    lines = [" &emsp;| ".join(row) for row in [header, *rows]]
    lines.insert(1, " | ".join(["---", *["---:"] * (len(header) - 1)]))
    return "\n".join(f"| {line} |" for line in lines)
