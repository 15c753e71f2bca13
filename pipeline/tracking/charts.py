"""How MLflow's page of curves is to look: a saved view, which MLflow keeps as a tag of the experiment.

Metrics that the view does not name follow it, in sections of MLflow's own.
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

# Title, charts in a row, height of a chart in pixels, metrics. MLflow calls epochs steps, whatever one does.
SECTIONS = (
    ("Validation perplexity by epoch", 1, 360, (SHOWN,)),
    ("Training perplexity and learning rate by epoch", 2, 300, ("perplexity/train", "training/learning_rate")),
)


def pages_of_curves(client: "MlflowClient", experiment: "Experiment") -> dict[str, str]:
    """The page, as the end of an address, by a name: with the view, which it gets here if there is a run of ours.

    Perplexities of different texts do not compare: where there are runs of several corpora, each has a page of its own,
    the newest first.
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
    """Those of our runs, that of the newest first."""
    conditions = [f"metrics.`{SHOWN}` > 0"]
    while runs := client.search_runs([experiment.experiment_id], " and ".join(conditions), max_results=1):
        yield (corpus := runs[0].data.tags.get("corpus", ""))
        conditions.append(f"tags.corpus != '{corpus}'")


def _with(corpus: str, name: str, between: str) -> str:
    return f"{name}{between}{corpus}" if corpus else name


def save_view(client: "MlflowClient", experiment: "Experiment", corpus: str = "") -> None:
    """Give an experiment the view, or its current form; corpus: of which it shows the runs alone."""
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
