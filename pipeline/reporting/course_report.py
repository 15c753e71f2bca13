"""The course report, whose figures are in params.yaml: they are shown beside our results only if these are comparable.

Comparable are models with 2 layers of 200 units on Penn Treebank, which is recognized by its sizes. A model that has
the name of one of the course report's must also have its cell, and dropout if and only if that has. The optimizer and
the number of epochs may differ: they are what the recipes vary.
"""

from collections.abc import Mapping, Sequence

from pipeline.lm.settings import Settings
from pipeline.reporting.results import Result
from pipeline.settings.schema import CorpusSizes, Perplexities

CORPUS = CorpusSizes(train_tokens=929_589, valid_tokens=73_760, test_tokens=82_430, vocabulary_size=10_000)
LAYERS, UNITS = 2, 200
ITS_MODELS = {  # cell, and whether there is dropout
    "lstm_dropout": ("lstm", True),
    "lstm": ("lstm", False),
    "gru_dropout": ("gru", True),
    "gru": ("gru", False),
}

SOURCE = (
    "a student's report for homework 2 of the course Deep Learning, 0510-7255, Tel Aviv University, spring 2020; not "
    "published as a paper"
)
LEFT_OUT = (
    f"The course report is about models with {LAYERS} layers of {UNITS} units on Penn Treebank. These results are "
    "about something else, so its figures and conclusions are left out."
)

CourseReport = Mapping[str, Perplexities]


def comparable(results: Sequence[Result], corpus: CorpusSizes) -> list[Result]:
    """The results by which the course report's conclusions can be checked."""
    return [result for result in results if corpus == CORPUS and is_of_the_size(result.settings)]


def figures_beside(results: Sequence[Result], corpus: CorpusSizes, course_report: CourseReport) -> CourseReport:
    """The course report's figures that may be shown beside our own."""
    return {
        result.name: course_report[result.name]
        for result in comparable(results, corpus)
        if result.name in course_report and _is_what_its_name_says(result)
    }


def is_of_the_size(settings: Settings) -> bool:
    return settings.num_layers == LAYERS and settings.hidden_size == settings.embedding_size == UNITS


def _is_what_its_name_says(result: Result) -> bool:
    cell, _, _ = result.settings.cell.partition("_")  # a variant of a cell counts as that cell
    return (cell, result.settings.drops) == ITS_MODELS.get(result.name, (cell, result.settings.drops))
