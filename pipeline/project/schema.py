"""What `params.yaml` may hold: its sections, and the types and bounds of their values."""

from typing import Annotated

from pydantic import Field, StringConstraints

from pipeline.lm.settings import DynamicEvaluation, PositiveFloat, PositiveInt, Settings, Strict
from pipeline.project.console import UserError
from pipeline.project.files import PARAMS

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class SourceFile(Strict):
    name: FileName
    sha256: Sha256


class Files(Strict):
    train: SourceFile
    valid: SourceFile
    test: SourceFile


class Download(Strict):
    timeout_seconds: PositiveFloat
    sources: Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1)]
    files: Files


class CorpusSizes(Strict):
    train_tokens: PositiveInt
    valid_tokens: PositiveInt
    test_tokens: PositiveInt
    vocabulary_size: PositiveInt


class Preprocess(Strict):
    expected: CorpusSizes | None


class Perplexities(Strict):
    train: PositiveFloat
    valid: PositiveFloat
    test: PositiveFloat


class Evaluate(Strict):
    """`dynamic` says how, for each model that is to be evaluated dynamically as well."""

    dynamic: dict[ModelName, DynamicEvaluation] | None


class Report(Strict):
    published: dict[ModelName, Perplexities] | None


class Params(Strict):
    """The whole of `params.yaml`; `models` maps a model's name to its complete settings."""

    recipe: ModelName
    processes: PositiveInt
    download: Download
    preprocess: Preprocess
    train: Settings
    models: Annotated[dict[ModelName, Settings], Field(min_length=1)]
    evaluate: Evaluate
    report: Report

    def model(self, name: str) -> Settings:
        """The settings of one model. Raises UserError when `params.yaml` has no such model."""
        if name not in self.models:
            raise UserError(f"no model {name!r} in {PARAMS}: there are {', '.join(self.models)}")
        return self.models[name]
