"""`params.yaml`, read and validated: every mistake becomes one line that names the key, the value and what to do."""

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.project.console import UserError
from pipeline.project.files import PARAMS
from pipeline.settings.mistakes import as_key, at, described, raise_mistakes, shown, without_inherited
from pipeline.settings.overlay import overlay
from pipeline.settings.schema import Params

MOST_VALUES = 1_000_000  # in a document


def load_params(path: Path = PARAMS) -> Params:
    """Read and validate a params file. Raises UserError, with a line for each mistake."""
    return parse_params(read_yaml(path), path)


def parse_params(document: Any, path: Path = PARAMS) -> Params:
    """Validate a parsed params file, each model's overrides merged into the shared `train` settings.

    Raises UserError, with a line for each mistake that says where it is in the file.
    """
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected the sections {', '.join(Params.model_fields)}")
    train, models = document.get("train"), document.get("models")
    complete = dict(document)
    if isinstance(train, dict):
        complete["train"] = overlay(train, {})
        if isinstance(models, dict):
            complete["models"] = {
                name: overlay(train, overrides) if isinstance(overrides, dict) else overrides
                for name, overrides in models.items()
            }
    try:
        params, lines = Params.model_validate(complete), []
    except ValidationError as error:
        params, lines = (
            None,
            [f"{path}: {described(each, Params)}" for each in without_inherited(error.errors(), document)],
        )
    names, dynamic = (at(document, keys) for keys in (("models",), ("evaluate", "dynamic")))
    if isinstance(names, dict) and isinstance(dynamic, dict):
        known = ", ".join(map(as_key, names))
        for name in [name for name, how in dynamic.items() if name not in names and isinstance(how, dict)]:
            lines.append(f"{path}: evaluate.dynamic.{as_key(name)}: no such model; there are {known}")
    raise_mistakes(lines)
    assert params
    return params


def read_yaml(path: Path) -> Any:
    """Read and parse a file. Raises UserError."""
    return parse_yaml(read_text(path), path)


def read_text(path: Path) -> str:
    """Raises UserError if there is no such file, or if it is not text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        remedy = "correct its name, run from the repository's root, or restore it with git"
        raise UserError(f"{path} not found: {remedy}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8: restore it with git") from None
    except ValueError:  # a null character, or half a surrogate pair
        raise UserError(f"{shown(str(path))} is not a file name: correct it") from None


def parse_yaml(text: str | bytes, path: Path) -> Any:
    """Parse as DVC does (YAML 1.2: `1e-3` is a number, a key given twice is an error).

    Raises UserError, one line, for anything but a document of plain values.
    """
    return deepcopy(_parsed(text, path))  # parsing dvc.lock takes a tenth of a second, and some commands read it often


@lru_cache
def _parsed(text: str | bytes, path: Path) -> Any:
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
        raise UserError(f"{path}: not valid YAML: groups nested too deeply: remove some") from None
    except Exception as error:  # the values are made by Python's own parsers, each with its own errors
        problem = shown(" ".join(str(error).split()))
        raise UserError(f"{path}: not valid YAML: a value is malformed: {problem}") from None
    values = [document]
    for value in values:  # grows meanwhile, by each use of an alias; in a loop, without end
        values += [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        if len(values) > MOST_VALUES:
            raise UserError(f"{path}: more than {MOST_VALUES:,} values, by aliases of aliases: write them out")
    return document
