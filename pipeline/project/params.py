"""`params.yaml`, read and validated: every mistake becomes one line that names the key, the value and what to do."""

import difflib
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.lm.settings import MOST_GENERATIONS, Settings, Strict
from pipeline.project.console import UserError
from pipeline.project.files import PARAMS
from pipeline.project.schema import LONGEST_NAME, Params
from pipeline.project.settings import overlay

MOST_VALUES = 1_000_000  # in a document
NEXT_LINE = "\nerror: "  # of a UserError about several mistakes

S = TypeVar("S", bound=Strict)


def load_params(path: Path = PARAMS) -> Params:
    """Read and validate a params file. Raises UserError, with one line, at the first mistake."""
    return parse_params(read_yaml(path), path)


def parse_params(document: Any, path: Path = PARAMS) -> Params:
    """Validate a parsed params file, each model's overrides laid over the shared `train` settings."""
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected the sections {', '.join(Params.model_fields)}")
    train, models = document.get("train"), document.get("models")
    if isinstance(train, dict):
        document = document | {"train": overlay(train, {})}
        validate(Settings, document["train"], path, ("train",))
        if isinstance(models, dict):
            overridden = {
                name: overlay(train, overrides) if isinstance(overrides, dict) else overrides
                for name, overrides in models.items()
            }
            document = document | {"models": overridden}
    params = validate(Params, document, path)
    for name in params.evaluate.dynamic or {}:
        if name not in params.models:
            raise UserError(f"{path}: evaluate.dynamic.{name}: no such model; there are {', '.join(params.models)}")
    return params


def read_yaml(path: Path) -> Any:
    """Read and parse a file. Raises UserError."""
    return parse_yaml(read_text(path), path)


def read_text(path: Path) -> str:
    """Raises UserError if there is no such file, or if it is not text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} not found: run from the repository's root, or restore it with git") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8: restore it with git") from None
    except ValueError:  # a null character, or half a surrogate pair
        raise UserError(f"{shown(str(path))} is no file's name: correct it") from None


def parse_yaml(text: str | bytes, path: Path) -> Any:
    """Parse as DVC does (YAML 1.2: `1e-3` is a number, a key given twice is an error).

    Raises UserError, one line, for whatever is no document of plain values.
    """
    try:
        document = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise UserError(f"{path}{line}: not valid YAML: {problem}") from None
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{path}: not valid YAML: groups within groups without end: take some away") from None
    except Exception as error:  # Python's own parsers make the values, and each has faults of its own
        problem = shown(" ".join(str(error).split()))
        raise UserError(f"{path}: not valid YAML: a value is not of its kind: {problem}") from None
    values = [document]
    for value in values:  # which grow meanwhile, an alias as often as it is named and, in a circle, without end
        values += [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        if len(values) > MOST_VALUES:
            raise UserError(f"{path}: more than {MOST_VALUES:,} values, by aliases of aliases: write them out")
    return document


class _Shown(reprlib.Repr):
    """Cuts what is long or deep, and what Python refuses to write out."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 100
        self.maxlevel = 3

    def repr_int(self, value: int, level: int) -> str:
        return super().repr_int(value, level) if value.bit_length() < 2**13 else f"<{value.bit_length():,} bits>"


_shown = _Shown()


def shown(value: Any) -> str:
    """A value as Python writes it, in a line of bounded length."""
    return _shown.repr(value)


def validate(schema: type[S], document: dict, path: Path, prefix: tuple[str, ...] = (), *, every: bool = False) -> S:
    """Validate a section of a file. Raises UserError, naming the file and, after the prefix, the key.

    every: not only of the first mistake, but a line for each
    """
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        errors = error.errors()
        if mistyped := [one for one in errors if one["type"] == "extra_forbidden"]:  # perhaps why others are missing
            errors = mistyped + [one for one in errors if one["type"] not in ("extra_forbidden", "missing")]
        lines = [f"{path}: {_describe(one, schema, prefix)}" for one in (errors if every else errors[:1])]
        raise UserError(NEXT_LINE.join(lines)) from None


def _describe(error: ErrorDetails, schema: type[BaseModel], prefix: tuple[str, ...]) -> str:
    """One line for one mistake: the key, the value, what is allowed."""
    location = [_as_key(part) for part in (*prefix, *error["loc"])]
    for group in ("optimizer", "schedule", "sampler"):
        if group in location[:-1]:
            del location[location.index(group) + 1]  # the kind of it, which is not a key
    key, message = ".".join(location), error["msg"][0].lower() + error["msg"][1:]
    match error["type"]:
        case "extra_forbidden":
            return f"{key}: no such setting; {_hint(location[-1], _keys_at(schema, error['loc'][:-1]))}"
        case "missing":
            return f"{key} is missing"
        case "union_tag_not_found":
            return f"{key}.name is missing"
        case "union_tag_invalid":
            context = error["ctx"]
            return f"{key}.name = {shown(context['tag'])}: input should be one of {context['expected_tags']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{key} = {shown(error['input'])}: expected a group of settings, {{name: value, ...}}"
        case "value_error":
            message = str(error["ctx"]["error"])
        case "tied_sizes_differ":
            message = "embedding_size and hidden_size have to be equal for that"
        case "too_many_generations":
            return f"{key}: teachers of teachers of teachers: {MOST_GENERATIONS} generations at most: leave some out"
    if location and location[-1] == "[key]":
        letters = f"small letters, digits and underscores, {LONGEST_NAME} at most"
        return f"{'.'.join(location[:-1])}: a name here is of {letters}"
    return f"{key} = {shown(error['input'])}: {message}"


def _as_key(part: int | str) -> str:
    """A key as it stands in the file, if that is a short line of text."""
    key = str(part) if isinstance(part, str) or abs(part) < 10**9 else shown(part)
    return key if key.isprintable() and len(key) <= LONGEST_NAME else shown(key)


def _hint(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"


def _keys_at(schema: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The keys of the group of settings at a location in a document, given as an error's `loc`."""
    kinds: list[Any] = [schema]
    for part in location:
        inner = [_parts(kind.model_fields[part].annotation) for kind in kinds if part in kind.model_fields]
        # A part that is not a field is a name in a mapping, or the kind of a group that has several kinds.
        kinds = [kind for group in inner for kind in group] or [k for k in kinds if _is_kind(k, part)] or kinds
    return list(kinds[0].model_fields)


def _parts(annotation: Any) -> list[type[BaseModel]]:
    """The groups of settings that a type consists of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for argument in get_args(annotation) for part in _parts(argument)]


def _is_kind(schema: type[BaseModel], name: int | str) -> bool:
    field = schema.model_fields.get("name")
    return field is not None and name in get_args(field.annotation)
