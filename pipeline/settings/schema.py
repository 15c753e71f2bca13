"""What `params.yaml` may hold: its sections, and the types and bounds of their values."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, AliasChoices, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from pipeline.lm.settings import DynamicEvaluation, Settings, Strict
from pipeline.project.console import UserError
from pipeline.project.files import PARAMS

PENN_TREEBANK = "ptb"
SHA256_OF_PENN_TREEBANK = "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"  # of its training text
LONGEST_NAME = 100  # leaves room for prefixes and suffixes in the 255 bytes of a file name
NAME = r"^[a-z0-9][a-z0-9_]*$"

ModelName = Annotated[str, StringConstraints(pattern=NAME, max_length=LONGEST_NAME)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{64}$", to_lower=True)]
FILE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
FilePath = Annotated[str, StringConstraints(pattern=rf"^{FILE_NAME}(/{FILE_NAME})*$", max_length=2 * LONGEST_NAME)]
Source = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Words = Annotated[int, Field(ge=1, lt=2**48)]
HIGHEST_OF_ADAMW = 0.1
Perplexity = Annotated[float, Field(gt=0, le=1e9)]


def _check_rate(settings: Settings, at: tuple[int | str, ...] = ()) -> Settings:
    """Refuse a learning rate meant for SGD with AdamW, which moves every weight by about that rate at each step.

    at: the keys of these settings within those of a model, whose teachers are checked as well
    """
    if settings.optimizer.name == "adamw" and settings.learning_rate > HIGHEST_OF_ADAMW:
        raise PydanticCustomError(
            "unusual_rate",
            "too high for adamw, whose rate is usually 0.001 to 0.01: give learning_rate beside the optimizer",
            {"at": (*at, "learning_rate"), "value": settings.learning_rate},
        )
    for number, teacher in enumerate(settings.teachers):
        _check_rate(teacher, (*at, "distillation", "teachers", number))
    return settings


ModelSettings = Annotated[Settings, AfterValidator(_check_rate)]


class SourceFile(Strict):
    """One of the three texts."""

    name: FilePath
    """Its path within each source."""
    sha256: Sha256 | None
    """The SHA-256 that it must have; null if it is not known: the download prints it."""


class Files(Strict):
    """The three texts of the corpus."""

    train: SourceFile
    valid: SourceFile
    test: SourceFile

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        if len({file.name.removeprefix("data/") for file in (self.train, self.valid, self.test)}) < 3:
            raise ValueError("train, valid and test are different files: give each its own name")
        return self


class Download(Strict):
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)]
    """How long to wait for an answer from a source."""
    sources: Annotated[list[Source], Field(min_length=1)]
    """Folders, archives, or the addresses of either; the first that has all three texts is used."""
    files: Files


class CorpusSizes(Strict):
    """The sizes that a corpus must have; null accepts any."""

    train_tokens: Words
    """Tokens of the training text, ends of lines included."""
    valid_tokens: Words
    """The same of the validation text."""
    test_tokens: Words
    """The same of the test text."""
    vocabulary_size: Words
    """Words that have an id."""


class Vocabulary(Strict):
    """Which words of the training split have an id, and whether all text is turned into lower case."""

    max_size: Annotated[int, Field(ge=3, lt=2**32)] | None = None
    """The largest number of words, `<unk>` and `<eos>` included: the most frequent ones are kept; null: all."""
    min_count: Words = 1
    """How often a word has to occur to be known; rarer ones become `<unk>`."""
    lower_case: bool = False
    """All text is turned into lower case."""


class Preprocess(Strict):
    corpus: ModelName = PENN_TREEBANK
    """The corpus's name in the report and in MLflow."""
    vocabulary: Vocabulary = Vocabulary()
    expected: CorpusSizes | None


class Perplexities(Strict):
    """The perplexities of one model."""

    train: Perplexity
    """Of the training text."""
    valid: Perplexity
    """Of the validation text."""
    test: Perplexity
    """Of the test text."""


class Evaluate(Strict):
    """What is evaluated besides the three perplexities of each model."""

    dynamic: dict[ModelName, DynamicEvaluation] | None
    """The models that are also evaluated while they keep learning from the text (Krause et al. 2018); null: none."""
    temperature: bool = False
    """All models are also evaluated at the softmax temperature that suits the validation text (Guo et al. 2017)."""


class Report(Strict):
    """What the report shows besides our own figures."""

    # Older commits of params.yaml, whose runs are still shown, call it `published`.
    course_report: dict[ModelName, Perplexities] | None = Field(
        validation_alias=AliasChoices("course_report", "published")
    )
    """Perplexities by model, to show beside ours; null: none."""


class Params(Strict):
    """The whole of `params.yaml`; `models` maps a model's name to its complete settings."""

    recipe: ModelName
    """The name that MLflow shows with each run."""
    processes: Annotated[int, Field(ge=1, le=1024)]
    """Processes on this machine that share each batch; does not change the result."""
    checkpoint_minutes: Annotated[float, Field(gt=0, le=1_000_000)] = 10.0
    """Minutes between checkpoints in the middle of an epoch; does not change the result."""
    download: Download
    preprocess: Preprocess
    train: ModelSettings
    models: Annotated[dict[ModelName, ModelSettings], Field(min_length=1)]
    evaluate: Evaluate
    report: Report

    def misnamed(self) -> str:
        """A warning if Penn Treebank has another corpus's name; else empty."""
        name = self.preprocess.corpus
        if self.download.files.train.sha256 != SHA256_OF_PENN_TREEBANK or re.search("ptb|penn", name):
            return ""
        return (
            f"preprocess.corpus is {name}, but download.files has Penn Treebank's SHA-256: results would be shown "
            f"under {name}'s name: correct one of them in {PARAMS}"
        )

    def model(self, name: str) -> Settings:
        """The settings of one model. Raises UserError if `params.yaml` has no such model."""
        if name not in self.models:
            raise UserError(f"no model {name!r} in {PARAMS}: there are {', '.join(self.models)}")
        return self.models[name]
