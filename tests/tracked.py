"""A training run as MLflow gets it, and what its store has: read back through MLflow's own client."""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.corpus.ids import Corpus
from pipeline.lm.record import EpochRecord
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.live import live_run
from tests.small import small_settings

VOCABULARY = ("<eos>", "the", "<unk>", "cat", "sat")
CORPUS = Corpus(torch.arange(5), torch.arange(3), torch.arange(4), VOCABULARY)
FACTS = RunFacts("lstm", "f1a9", small_settings(), CORPUS, {"device": "cpu"}, training_id="5eed")


def epochs(number: int, hour: int = 12) -> list[EpochRecord]:
    return [
        EpochRecord(epoch, 1.0, 300.0 / epoch, 310.0 / epoch, 2.5, 9000.0, 60.0, f"2026-01-31T{hour}:{epoch:02d}:00Z")
        for epoch in range(1, number + 1)
    ]


def follow(
    history: Sequence[EpochRecord], *, files: Sequence[Path] = (), fault: type[BaseException] | None = None
) -> None:
    """Let MLflow follow a training run to its end, or to a fault that ends it early."""
    with suppress(fault) if fault else nullcontext(), live_run(FACTS) as tracked:
        tracked.publish(history)
        if fault:
            raise fault("as planned")
        tracked.end("FINISHED", files=files)


def store_address() -> str:
    return f"sqlite:///{Path('mlflow.db').resolve()}"


def store() -> MlflowClient:
    return MlflowClient(store_address())


def runs(client: MlflowClient | None = None) -> list[Run]:
    """The runs of our experiment, the newest first; none before there is one."""
    client = client or store()
    experiment = client.get_experiment_by_name("recurrent-lm")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def points(run: Run, metric: str) -> list[tuple[int, float]]:
    history = store().get_metric_history(run.info.run_id, metric)
    return [(point.step, point.value) for point in history]


def artifacts(run: Run) -> set[str]:
    return {file.path for file in store().list_artifacts(run.info.run_id)}
