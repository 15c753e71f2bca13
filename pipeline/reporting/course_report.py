"""The report that params.yaml has figures of: it stands beside our results only where corpus and models are the same.

That is Penn Treebank, by its sizes, and models of 2 layers of 200 units; beside a model of one of its names, also its
cell and whether it drops. How long and by which optimizer a model is trained is what the recipes try against its
figures, and has no part in it.
"""

from collections.abc import Mapping, Sequence

from pipeline.lm.settings import Settings
from pipeline.reporting.results import Result
from pipeline.settings.schema import CorpusSizes, Perplexities

CORPUS = CorpusSizes(train_tokens=929_589, valid_tokens=73_760, test_tokens=82_430, vocabulary_size=10_000)
LAYERS, UNITS = 2, 200
MODELS = {"lstm_dropout": ("lstm", True), "lstm": ("lstm", False), "gru_dropout": ("gru", True), "gru": ("gru", False)}

SOURCE = (
    "a student's report for homework 2 of the course Deep Learning, 0510-7255, Tel Aviv University, spring 2020; not "
    "published as a paper"
)
LEFT_OUT = (
    f"The course report is on Penn Treebank and models of {LAYERS} layers of {UNITS} units. These results are of "
    "something else, so neither its figures nor its conclusions stand beside them."
)

CourseReport = Mapping[str, Perplexities]


def comparable(results: Sequence[Result], corpus: CorpusSizes) -> list[Result]:
    """The results on which the course report's conclusions bear."""
    return [result for result in results if corpus == CORPUS and is_of_the_size(result.settings)]


def figures_beside(results: Sequence[Result], corpus: CorpusSizes, course_report: CourseReport) -> CourseReport:
    """The course report's figures that may stand beside our own."""
    return {
        result.name: course_report[result.name]
        for result in comparable(results, corpus)
        if result.name in course_report and _is_what_its_name_says(result)
    }


def is_of_the_size(settings: Settings) -> bool:
    return settings.num_layers == LAYERS and settings.hidden_size == settings.embedding_size == UNITS


def _is_what_its_name_says(result: Result) -> bool:
    cell, _, _ = result.settings.cell.partition("_")  # a variant of a cell is one of them
    return (cell, result.settings.drops) == MODELS.get(result.name, (cell, result.settings.drops))
