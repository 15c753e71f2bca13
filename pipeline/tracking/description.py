"""What describes a run apart from its epochs and results: name, colour, settings, corpus, how to reproduce it."""

import json
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.artifacts.teachers import student_of
from pipeline.lm.record import EpochRecord
from pipeline.project.files import PARAMS, PROCESSED, SPLITS
from pipeline.settings.overlay import flattened
from pipeline.tracking import origin
from pipeline.tracking.appearance import color_for, run_name
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.identity import milliseconds
from pipeline.tracking.teachers import TEACHER_OF, link

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient
    from mlflow.entities import Run

COLOR = "mlflow.runColor"
RUNS_TOLD_APART = 20  # by colour
LONGEST_DIGEST = 36  # that MLflow takes


class RunDescription:
    """What MLflow is told of a run; made when its training starts.

    live: training is in progress in this process; otherwise a run that has to be created is marked as restored, and
    gets the original times of the training run.
    """

    def __init__(self, facts: RunFacts, *, live: bool) -> None:
        self._facts = facts
        self._started = round(time.time() * 1000)
        self._origin = origin.circumstances() if live else {"restored": "true"}
        identity = {
            "model": facts.model,
            "corpus": facts.corpus_name,
            "fingerprint": facts.fingerprint,
            "training_id": facts.training_id,
            "data_sha256": facts.data_sha256,
            TEACHER_OF: student_of(facts.model),
        }
        known = {name: value for name, value in identity.items() if value}
        self._tags = known | facts.tags | (origin.data_at_hand() if facts.corpus else {})
        self._texts = {PARAMS.name: facts.params or ""}
        if live:
            self._texts |= {"uncommitted.diff": origin.uncommitted_changes(), "packages.txt": origin.packages()}

    def create(self, client: "MlflowClient", experiment_id: str, history: Sequence[EpochRecord]) -> "Run":
        """A run that starts when its training did, whenever MLflow answers."""
        facts = self._facts
        start = milliseconds(history[0].finished_at) - round(history[0].seconds * 1000) if history else self._started
        name = run_name(facts.model, facts.settings, facts.tags.get("recipe"))
        return client.create_run(experiment_id, start, self._tags | self._origin, name)

    def complete(self, client: "MlflowClient", run: "Run") -> None:
        """Add whatever the run lacks."""
        from mlflow.entities import Param

        run_id = run.info.run_id
        if not run.data.params:
            settings = flattened(self._facts.settings).items()
            client.log_batch(run_id, params=[Param(name, str(value)) for name, value in settings])
        present = {file.path for file in client.list_artifacts(run_id)}
        for name, text in self._texts.items():
            if text and name not in present:
                client.log_text(run_id, text, name)
        for name, value in self._tags.items():
            if name not in run.data.tags:
                client.set_tag(run_id, name, value)
        if COLOR not in run.data.tags:
            client.set_tag(run_id, COLOR, self._color(client, run))
        if not (run.inputs and run.inputs.dataset_inputs):
            self._log_dataset(client, run_id)
        link(client, run)

    def _color(self, client: "MlflowClient", run: "Run") -> str:
        """A colour that tells the run from those that stand beside it, the latest."""
        runs = client.search_runs([run.info.experiment_id], max_results=RUNS_TOLD_APART)
        taken = {other.data.tags.get(COLOR, "") for other in runs}
        return color_for(self._facts.model, [color for color in taken if re.fullmatch("#[0-9a-f]{6}", color)])

    def _log_dataset(self, client: "MlflowClient", run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        corpus, sizes = self._facts.corpus, self._facts.sizes
        if corpus:
            tokens = {split: len(ids) for split, ids in corpus.splits().items()}
            words = len(corpus.vocabulary)
        elif sizes:
            tokens = {split: getattr(sizes, f"{split}_tokens") for split in SPLITS}
            words = sizes.vocabulary_size
        else:
            return
        digest = self._tags.get(origin.IDS_MD5) or (corpus.fingerprint if corpus else "unknown")
        dataset = Dataset(
            name=self._facts.corpus_name,
            digest=digest[:LONGEST_DIGEST],
            source_type="local",
            source=json.dumps({"uri": PROCESSED.as_posix()}),
            profile=json.dumps({"tokens": tokens, "vocabulary_size": words}),
        )
        context = InputTag("mlflow.data.context", "training")
        client.log_inputs(run_id, [DatasetInput(dataset, [context])])
