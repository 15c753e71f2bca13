"""`params.yaml`, read and validated: every mistake becomes one line that names the key, the value and what to do."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.project.console import UserError
from pipeline.project.files import PARAMS
from pipeline.settings.mistakes import as_key, at, described, own, raise_mistakes, shown
from pipeline.settings.overlay import overlay
from pipeline.settings.schema import Params

MOST_VALUES = 1_000_000  # in a document


def load_params(path: Path = PARAMS) -> Params:
    """Read and validate a params file. Raises UserError, with a line for each mistake."""
    return parse_params(read_yaml(path), path)


def parse_params(document: Any, path: Path = PARAMS) -> Params:
    """Validate a parsed params file, each model's overrides laid over the shared `train` settings.

    Raises UserError, with a line for each mistake, where it stands in the file.
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
        params, lines = None, [f"{path}: {described(one, Params)}" for one in own(error.errors(), document)]
    names, dynamic = (at(document, place) for place in (("models",), ("evaluate", "dynamic")))
    if isinstance(names, dict) and isinstance(dynamic, dict):
        there = ", ".join(map(as_key, names))
        for name in [name for name, how in dynamic.items() if name not in names and isinstance(how, dict)]:
            lines.append(f"{path}: evaluate.dynamic.{as_key(name)}: no such model; there are {there}")
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
