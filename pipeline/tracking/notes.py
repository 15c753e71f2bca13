"""What MLflow shows in words: a run's figures and how to use it, the card of a registered version, all models' results.

Only texts that start as ours do are updated: what a person has rewritten is left alone.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pipeline.artifacts.metrics import read_corpus_sizes
from pipeline.project.console import UserError, warn
from pipeline.project.files import REPORT, SPLITS
from pipeline.reporting.course_report import figures_beside
from pipeline.reporting.results import Result, read_results, results_table
from pipeline.settings.params import load_params
from pipeline.tracking.charts import save_view
from pipeline.tracking.facts import shown
from pipeline.tracking.faults import explain
from pipeline.tracking.location import locate
from pipeline.tracking.runs import PARENT, TEACHER_OF
from pipeline.tracking.store import connect, within

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

NOTE = "mlflow.note.content"
PICTURE = "curve.png"
OPENING = "**Perplexity**"
EARLIER = re.compile(r"Perplexity [\d.]+ \(")  # the start of older descriptions of versions
KINDS = ("tempered", "dynamic")

MAIN = ("cell", "num_layers", "hidden_size", "dropout", "tied_weights", "epochs", "optimizer.name", "learning_rate")
LIMITS = (
    "Not for: texts of another kind, language or spelling than this corpus, and anything where it matters whether a "
    "statement is true: it continues as its corpus would, and knows no facts."
)


def describe_run(client: "MlflowClient", run_id: str) -> bool:
    """Update a run's note and the cards of its registered versions from what MLflow knows about the run.

    MLflow shows the first lines of a note, and the rest on request. Returns whether anything changed.
    """
    run = client.get_run(run_id)
    versions = list(client.search_model_versions(f"run_id = '{run_id}'"))
    pictured = any(file.path == PICTURE for file in client.list_artifacts(run_id))
    model, figures, teaching = run.data.tags["model"], _figures(run), _teaching(run)
    if not (figures or teaching or versions or pictured):
        return False
    opening = f"{OPENING}{figures or f' of `{model}` by epoch, lower is better.'}{teaching}"
    changed = False
    for version in versions:
        card = "\n\n".join([opening, _card(run), _usage(run, version)])
        if _is_ours(version.description) and version.description != card:
            client.update_model_version(version.name, version.version, card)
            changed = True
    blocks = [opening, *(_usage(run, version) for version in versions[:1])]
    if pictured:
        blocks.append(f"![Perplexity by epoch](get-artifact?path={PICTURE}&run_uuid={run_id})")
    note, old = "\n\n".join(blocks), run.data.tags.get(NOTE)
    if _is_ours(old) and old != note:
        client.set_tag(run_id, NOTE, note)
        changed = True
    return changed


def _is_ours(text: str | None) -> bool:
    return not text or text.startswith(OPENING) or bool(EARLIER.match(text))


def _figures(run: "Run") -> str:
    """The perplexities of the best weights, and of the last epoch; empty until they are evaluated."""
    metrics, parts = run.data.metrics, []
    for split in SPLITS:
        if (name := shown(f"{split}_perplexity")) in metrics:
            others = [f"{kind} {metrics[other]:.2f}" for kind in KINDS if (other := f"{name}_{kind}") in metrics]
            parts.append(f"{split} {metrics[name]:.2f}" + (f" ({', '.join(others)})" if others else ""))
    if not parts:
        return ""
    epoch = f", those of epoch {metrics['best_epoch']:.0f}" if "best_epoch" in metrics else ""
    figures = f" of the best weights{epoch}: {', '.join(parts)}."
    last = metrics.get("perplexity/valid")
    return f"{figures} (The last epoch has {last:.2f}: `perplexity/valid`.)" if last else figures


def _teaching(run: "Run") -> str:
    if not (student := run.data.tags.get(TEACHER_OF)):
        return ""
    page = run.data.tags.get(PARENT)
    name = f"[`{student}`](#/experiments/{run.info.experiment_id}/runs/{page})" if page else f"`{student}`"
    return f" A teacher of {name}."


def _card(run: "Run") -> str:
    """A model's corpus, its main settings, and what it is not for."""
    corpus = f"`{run.data.tags['corpus']}`"
    for given in run.inputs.dataset_inputs if run.inputs else ():
        sizes = json.loads(given.dataset.profile or "")
        corpus += f", {sizes['tokens']['train']:,} tokens to train on, {sizes['vocabulary_size']:,} words"
    settings = ", ".join(f"`{name}` {run.data.params[name]}" for name in MAIN if name in run.data.params)
    return f"- Corpus: {corpus}.\n- Settings: {settings}.\n- {LIMITS}"


def _usage(run: "Run", version: "ModelVersion") -> str:
    name, model, store = version.name, run.data.tags["model"], locate().command_address
    serve = f"mlflow models serve --model-uri models:/{name}/{version.version} --env-manager local --port 5001"
    return (
        f"`python -m pipeline.score {model} my.txt` scores a text with the weights in `results/models`. MLflow has the "
        "best version in Python, and this one over HTTP, as `docs/use.md` shows:\n\n"
        f'```python\nmlflow.pyfunc.load_model("models:/{name}@champion")\n```\n\n'
        f"```sh\nMLFLOW_TRACKING_URI={store} {serve}\n```"
    )


def describe_experiment() -> None:
    """Update the experiment's note from the result files, and its view. If MLflow fails, that becomes a warning."""
    if not (results := _results()):
        return
    note = experiment_note(results)

    def write() -> None:
        client, experiment_id = connect()
        experiment = client.get_experiment(experiment_id)
        save_view(client, experiment)
        if _is_ours(old := experiment.tags.get(NOTE)) and old != note:
            client.set_experiment_tag(experiment_id, NOTE, note)

    try:
        within(write)
    except Exception as error:
        warn(f"the experiment's note in MLflow is behind: {explain(error)}; the next stage or `make ui` updates it")


def experiment_note(results: Sequence[Result]) -> str:
    """The report's table, next to the course report's figures if both are for the same corpus and models."""
    params = load_params()
    try:
        course_report = figures_beside(results, read_corpus_sizes(), params.report.course_report or {})
    except UserError:
        course_report = {}
    tests = ", ".join(f"`{result.name}` {result.metrics.test_perplexity:.2f}" for result in results)
    # MLflow's page leaves no space between columns.
    table = re.sub(r"(?<![-:]) \| ", " &emsp;| ", results_table(results, course_report))
    more = f"These are figures of the best epoch's weights; more in `{REPORT / 'report.md'}`."
    text = f"the test text of `{params.preprocess.corpus}`"
    return f"{OPENING} on {text}, lower is better: {tests}.\n\n{table}\n\n{more}"


def _results() -> list[Result]:
    """The complete and up-to-date results of the models in params.yaml."""
    results = []
    with suppress(UserError):
        for name, settings in load_params().models.items():
            with suppress(UserError):
                results += read_results({name: settings})
    return results
