"""What was published, and for which corpus and models: it stands beside our results only where those are the same.

That is Penn Treebank, by its sizes, and models of 2 layers of 200 units; beside a model of a published name, also its
cell and whether it drops. How long and by which optimizer a model is trained is what the recipes try against the
published figures, and has no part in it.
"""

from collections.abc import Mapping, Sequence

from pipeline.lm.settings import Settings
from pipeline.project.schema import CorpusSizes, Perplexities
from pipeline.reporting.results import Result

CORPUS = CorpusSizes(train_tokens=929_589, valid_tokens=73_760, test_tokens=82_430, vocabulary_size=10_000)
LAYERS, UNITS = 2, 200
MODELS = {"lstm_dropout": ("lstm", True), "lstm": ("lstm", False), "gru_dropout": ("gru", True), "gru": ("gru", False)}

LEFT_OUT = (
    f"What was published is of Penn Treebank and models of {LAYERS} layers of {UNITS} units. These results are of "
    "something else, so neither its figures nor its conclusions stand beside them."
)

Published = Mapping[str, Perplexities]


def comparable(results: Sequence[Result], corpus: CorpusSizes) -> list[Result]:
    """The results on which the published conclusions bear."""
    return [result for result in results if corpus == CORPUS and is_of_the_size(result.settings)]


def figures_beside(results: Sequence[Result], corpus: CorpusSizes, published: Published) -> Published:
    """The published figures that may stand beside our own."""
    return {
        result.name: published[result.name]
        for result in comparable(results, corpus)
        if result.name in published and _is_what_its_name_says(result)
    }


def is_of_the_size(settings: Settings) -> bool:
    return settings.num_layers == LAYERS and settings.hidden_size == settings.embedding_size == UNITS


def _is_what_its_name_says(result: Result) -> bool:
    cell, _, _ = result.settings.cell.partition("_")  # a variant of a cell is one of them
    return (cell, result.settings.drops) == MODELS.get(result.name, (cell, result.settings.drops))
