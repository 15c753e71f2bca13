"""Teachers' runs: each says whose teacher it is, and stands under its student's run, folded away at first."""

from typing import TYPE_CHECKING

from pipeline.artifacts.teachers import student_of

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient
    from mlflow.entities import Run

TEACHER_OF = "teacher_of"
PARENT = "mlflow.parentRunId"


def link(client: "MlflowClient", run: "Run") -> None:
    """Put a teacher's run under its student's newest, and under a student's those of its teachers that have no place.

    Which of them MLflow hears of first depends on whether they were trained now or restored.
    """
    if "sweep" in run.data.tags:
        return
    model, experiments = run.data.tags["model"], [run.info.experiment_id]
    if (student := student_of(model)) and PARENT not in run.data.tags:
        for found in client.search_runs(experiments, f"tags.model = '{student}' and tags.sweep IS NULL", max_results=1):
            client.set_tag(run.info.run_id, PARENT, found.info.run_id)
    for teacher in client.search_runs(experiments, f"tags.{TEACHER_OF} = '{model}' and tags.sweep IS NULL"):
        if PARENT not in teacher.data.tags:
            client.set_tag(teacher.info.run_id, PARENT, run.info.run_id)
