"""What MLflow gets to know about a training run, apart from its epochs."""

from dataclasses import dataclass, field

from pipeline.corpus.ids import Corpus
from pipeline.lm.settings import Settings
from pipeline.settings.schema import PENN_TREEBANK, CorpusSizes
from pipeline.tracking.faults import REMEDY


def shown(figure: str) -> str:
    """A final figure's name in MLflow, where `perplexity/valid` is the last epoch's, not that of the best weights."""
    return f"best_{figure}" if "_perplexity" in figure else figure


@dataclass(frozen=True)
class RunFacts:
    """What is known about a training run, apart from its epochs.

    fingerprint: from `checkpoint.fingerprint`; None if only the history is available
    corpus: None if it is not available
    trained_on: the fingerprint of the corpus according to the weights file, if the corpus is not available
    remedy: the command that will later write whatever MLflow is missing
    training_id: from `checkpoint.training_id`; None if only the results are available
    params: the text of params.yaml at the start of the run
    corpus_name: what params.yaml calls the corpus
    sizes: of the corpus, if it is not available itself
    """

    model: str
    fingerprint: str | None
    settings: Settings
    corpus: Corpus | None = None
    tags: dict[str, str] = field(default_factory=dict)
    remedy: str = REMEDY
    training_id: str | None = None
    params: str | None = None
    corpus_name: str = PENN_TREEBANK
    sizes: CorpusSizes | None = None
    trained_on: str | None = None

    @property
    def corpus_sizes(self) -> CorpusSizes | None:
        """None if they are not known."""
        return self.corpus.sizes() if self.corpus else self.sizes

    @property
    def data_sha256(self) -> str | None:
        """The corpus's fingerprint; None if it is not known."""
        return self.corpus.fingerprint if self.corpus else self.trained_on
