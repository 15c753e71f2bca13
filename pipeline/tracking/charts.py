"""The layout of MLflow's page of curves: a saved view, which MLflow keeps as a tag of the experiment.

Metrics that are not in the view follow it, in sections of MLflow's own.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

VIEW = "curves"
TAG = f"mlflow.sharedViewState.{VIEW}"
NAME = "Perplexity by epoch"
SHOWN = "perplexity/valid"

# Title, charts in a row, height of a chart in pixels, metrics. MLflow always calls epochs steps.
SECTIONS = (
    ("Validation perplexity by epoch", 1, 360, (SHOWN,)),
    ("Training perplexity and learning rate by epoch", 2, 300, ("perplexity/train", "training/learning_rate")),
)


def pages_of_curves(client: "MlflowClient", experiment: "Experiment") -> dict[str, str]:
    """The ends of the pages' addresses, by name; saves their views, if the experiment has any of our runs.

    Perplexities of different texts cannot be compared, so each corpus has a page of its own, the newest first.
    """
    page = f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning&compareRunsMode=CHART"
    corpora = list(_corpora(client, experiment))
    if not corpora:
        return {experiment.name: page}
    pages = {}
    for corpus in corpora if len(corpora) > 1 else [""]:
        save_view(client, experiment, corpus)
        pages[_with(corpus, experiment.name, ", ")] = f"{page}&viewStateShareKey={_with(corpus, VIEW, '-')}"
    return pages


def _corpora(client: "MlflowClient", experiment: "Experiment") -> Iterator[str]:
    """The corpora of our runs, that of the newest run first."""
    conditions = [f"metrics.`{SHOWN}` > 0"]
    while runs := client.search_runs([experiment.experiment_id], " and ".join(conditions), max_results=1):
        yield (corpus := runs[0].data.tags.get("corpus", ""))
        conditions.append(f"tags.corpus != '{corpus}'")


def _with(corpus: str, name: str, between: str) -> str:
    return f"{name}{between}{corpus}" if corpus else name


def save_view(client: "MlflowClient", experiment: "Experiment", corpus: str = "") -> None:
    """Save the view in an experiment, or update it. corpus: the only one whose runs it shows"""
    tag, view = _with(corpus, TAG, "-"), saved_view(corpus)
    if experiment.tags.get(tag) != view:
        client.set_experiment_tag(experiment.experiment_id, tag, view)


def saved_view(corpus: str = "") -> str:
    """The view as MLflow's own page would save it."""
    sections: list[dict[str, Any]] = []
    charts: list[dict[str, Any]] = []
    for title, columns, height, metrics in SECTIONS:
        section = {"uuid": title, "name": title, "display": True, "isReordered": False}
        sections.append(section | {"columns": columns, "cardHeight": height})
        for metric in metrics:
            scale = "log" if metric.startswith("perplexity/") else "linear"
            chart = {"uuid": metric, "type": "LINE", "metricKey": metric, "metricSectionId": title}
            charts.append(chart | {"scaleType": scale, "xAxisKey": "step", "lineSmoothness": 0})
    state: dict[str, Any] = {"compareRunCharts": charts, "compareRunSections": sections, "isAccordionReordered": True}
    if corpus:
        state["searchFilter"] = f"tags.corpus = '{corpus}'"
    return json.dumps({"name": _with(corpus, NAME, ", "), "createdAt": 0, "state": json.dumps(state)})
