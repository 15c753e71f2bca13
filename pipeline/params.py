"""`params.yaml`, read and validated: every mistake becomes one line that names the key, the value and the remedy."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.console import UserError
from pipeline.files import PARAMS
from pipeline.lm.settings import DynamicEvaluation, PositiveFloat, PositiveInt, Settings, Strict

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


S = TypeVar("S", bound=Strict)


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

    @model_validator(mode="after")
    def _evaluated_models_are_there(self) -> "Params":
        for name in self.evaluate.dynamic or {}:
            if name not in self.models:
                context = {"key": f"evaluate.dynamic.{name}", "names": ", ".join(self.models)}
                raise PydanticCustomError("unknown_key", "no such model; there are {names}", context)
        return self

    def model(self, name: str) -> Settings:
        """The settings of one model. Raises UserError when `params.yaml` has no such model."""
        if name not in self.models:
            raise UserError(f"no model {name!r} in {PARAMS}: there are {', '.join(self.models)}")
        return self.models[name]


def load_params(path: Path = PARAMS) -> Params:
    """Read and validate a params file. Raises UserError, one line, at the first mistake."""
    return parse_params(read_yaml(path), path)


def parse_params(document: Any, path: Path = PARAMS) -> Params:
    """Validate a parsed params file, each model's overrides laid over the shared `train` settings."""
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected the sections {', '.join(Params.model_fields)}")
    train, models = document.get("train"), document.get("models")
    if isinstance(train, dict):
        validate(Settings, train, path, ("train",))
        if isinstance(models, dict):
            overridden = {
                name: overlay(train, overrides) if isinstance(overrides, dict) else overrides
                for name, overrides in models.items()
            }
            document = document | {"models": overridden}
    return validate(Params, document, path)


def read_yaml(path: Path) -> Any:
    """Parse as DVC does (YAML 1.2: `1e-3` is a number, a key given twice is an error)."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} not found: run from the repository's root, or restore it with git") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8: restore it with git") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise UserError(f"{path}{line}: not valid YAML: {problem}") from None
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


def overlay(shared: dict, overrides: dict) -> dict:
    """Lay a model's settings over the shared ones; a nested group that names another kind replaces the shared one."""
    merged = dict(shared)
    for key, value in overrides.items():
        group = shared.get(key)
        if isinstance(group, dict) and isinstance(value, dict) and value.get("name") in (None, group.get("name")):
            merged[key] = group | value
        else:
            merged[key] = value
    return merged


def validate(schema: type[S], document: dict, path: Path, prefix: tuple[str, ...] = ()) -> S:
    """A section of a file by its schema. Raises UserError that names the file and, after the prefix, the key."""
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        raise UserError(f"{path}: {_describe(error.errors()[0], prefix)}") from None


def _describe(error: ErrorDetails, prefix: tuple[str, ...]) -> str:
    """One line for one mistake: the key, the value, what is allowed."""
    location = [str(part) for part in (*prefix, *error["loc"])]
    for group in ("optimizer", "schedule"):
        if group in location[:-1]:
            del location[location.index(group) + 1]  # the kind of optimizer or schedule, which is no key
    message = error["msg"][0].lower() + error["msg"][1:]
    if error["type"] == "union_tag_not_found":
        return f"{'.'.join(location)}.name is missing"
    if error["type"] == "union_tag_invalid":
        context = error["ctx"]
        return f"{'.'.join(location)}.name = {context['tag']!r}: input should be one of {context['expected_tags']}"
    if error["type"] == "unknown_key":
        return f"{'.'.join([*location, error['ctx']['key']])}: {message}"
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{'.'.join(location)} = {error['input']!r}: expected a group of settings, {{name: value, ...}}"
    if error["type"] == "missing":
        return f"{'.'.join(location)} is missing"
    if location and location[-1] == "[key]":
        return f"{'.'.join(location[:-1])}: a name here is of small letters, digits and underscores"
    return f"{'.'.join(location)} = {error['input']!r}: {message}"
