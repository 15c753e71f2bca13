"""How MLflow's page of curves is to look: a saved view, which MLflow keeps as a tag of the experiment.

Metrics that the view does not name follow it, in sections of MLflow's own.
"""

import json
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


def page_of_curves(client: "MlflowClient", experiment: "Experiment") -> str:
    """The page, as the end of an address: with the view, which it gets here, if the experiment has a run of ours."""
    page = f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning&compareRunsMode=CHART"
    if not client.search_runs([experiment.experiment_id], f"metrics.`{SHOWN}` > 0", max_results=1):
        return page
    save_view(client, experiment)
    return f"{page}&viewStateShareKey={VIEW}"


def save_view(client: "MlflowClient", experiment: "Experiment") -> None:
    """Give an experiment the view, or its current form."""
    if experiment.tags.get(TAG) != (view := saved_view()):
        client.set_experiment_tag(experiment.experiment_id, TAG, view)


def saved_view() -> str:
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
    state = {"compareRunCharts": charts, "compareRunSections": sections, "isAccordionReordered": True}
    return json.dumps({"name": NAME, "createdAt": 0, "state": json.dumps(state)})
