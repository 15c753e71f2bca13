"""Which study a sweep on a corpus belongs to."""

from pipeline.artifacts.trials import KeptStudy, study_path
from pipeline.corpus.ids import Corpus
from pipeline.project.console import UserError
from pipeline.settings.schema import CorpusSizes
from pipeline.sweeps.sweep_file import Sweep


def identity(sweep: Sweep, kept: KeptStudy | None, corpus: Corpus | None) -> KeptStudy:
    """This sweep's study on the given corpus or, without one, on the kept study's corpus; no trials included.

    Raises UserError if a study is kept that this one does not continue.
    """
    if corpus:
        sizes = {f"{split}_tokens": len(ids) for split, ids in corpus.splits().items()}
        data, of = corpus.fingerprint, CorpusSizes(**sizes, vocabulary_size=len(corpus.vocabulary))
    else:
        assert kept
        data, of = kept.data_sha256, kept.corpus
    name = sweep.study_name(data)
    if kept and kept.ended and kept.name not in (name, *sweep.earlier_names(data)):
        path = study_path(sweep.name)
        raise UserError(
            f"{path} is of another study than {sweep.path}, {kept.name}: bring back its settings or its corpus, or move"
            f" {path.parent} away to start anew"
        )
    return KeptStudy(name=name, data_sha256=data, corpus=of, trials=sweep.trials)
