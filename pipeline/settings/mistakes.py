"""What is wrong with a document of settings: a line for each mistake, with the key, the value and what to do."""

import difflib
import re
import reprlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.lm.settings import MOST_GENERATIONS, Strict
from pipeline.project.console import UserError
from pipeline.settings.schema import LONGEST_NAME

NEXT_LINE = "\nerror: "  # of a UserError about several mistakes
MOST_SHOWN = 20  # mistakes at once
GROUPS_OF_KINDS = ("optimizer", "schedule", "sampler")
USUAL_NAMES = {  # in other projects, and ours
    "lr": "learning_rate",
    "adam": "adamw",
    "momentum": "optimizer.momentum",
    "weight_decay": "optimizer.weight_decay",
    "hidden": "hidden_size",
    "nhid": "hidden_size",
    "layers": "num_layers",
    "nlayers": "num_layers",
    "emsize": "embedding_size",
    "clip": "max_grad_norm",
    "grad_clip": "max_grad_norm",
    "seq_len": "bptt",
    "tied": "tied_weights",
}

S = TypeVar("S", bound=Strict)
T = TypeVar("T")


class _Shown(reprlib.Repr):
    """Shortens long and nested values, and integers that Python refuses to print."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 100
        self.maxlevel = 3

    def repr_int(self, value: int, level: int) -> str:
        return super().repr_int(value, level) if value.bit_length() < 2**13 else f"<{value.bit_length():,} bits>"


_shown = _Shown()


def shown(value: Any) -> str:
    """A value as Python writes it, in a line of limited length."""
    return _shown.repr(value)


def raise_mistakes(lines: Sequence[str]) -> None:
    """Raise UserError with a line for each mistake, if there are any."""
    if lines:
        raise UserError(NEXT_LINE.join(islice(dict.fromkeys(lines), MOST_SHOWN)))


class Mistakes:
    """Collects the mistakes found by several checks, each once."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def check(self, function: Callable[[], T]) -> T | None:
        """The function's result; if it raises UserError, that is noted and the result is None."""
        try:
            return function()
        except UserError as error:
            for line in str(error).split(NEXT_LINE):
                self.add(line)
            return None

    def add(self, line: str) -> None:
        self._lines[line] = None

    def raise_all(self) -> None:
        """Raise UserError, a line for each mistake, if there are any."""
        raise_mistakes(list(self._lines))


def validate(schema: type[S], document: dict, path: Path, prefix: tuple[str, ...] = ()) -> S:
    """Validate a section of a file.

    Raises UserError, with a line for each mistake that names the file and, after the prefix, the key.
    """
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        lines = [f"{path}: {described(each, schema, prefix)}" for each in _causes_first(error.errors())]
        raise UserError(NEXT_LINE.join(islice(lines, MOST_SHOWN))) from None


def _causes_first(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Mistyped keys first, without missing keys in the same group, which may be the ones mistyped."""
    mistyped = [error for error in errors if error["type"] == "extra_forbidden"]
    groups = {error["loc"][:-1] for error in mistyped}
    others = [error for error in errors if error["type"] != "extra_forbidden"]
    return mistyped + [each for each in others if each["type"] != "missing" or each["loc"][:-1] not in groups]


def without_inherited(errors: list[ErrorDetails], document: dict) -> list[ErrorDetails]:
    """The mistakes in a params file where they were made, not again in each model and teacher that inherits them."""
    found = {(error["type"], _keys(error)) for error in errors}
    no_train = not isinstance(document.get("train"), dict)

    def inherited(error: ErrorDetails) -> bool:
        keys = _keys(error)
        if keys[0] == "models" and len(keys) > 2 and no_train:
            return True
        return not _is_in(document, keys) and any((error["type"], source) in found for source in _sources(keys))

    return [error for error in _causes_first(errors) if not inherited(error)]


def _sources(keys: tuple[int | str, ...]) -> Iterator[tuple[int | str, ...]]:
    """Where else a setting of a model, or of one of its teachers, may have been set."""
    while "teachers" in keys:
        index = keys.index("teachers")
        keys = (*keys[: index - 1], *keys[index + 2 :])
        yield keys
    if keys[0] == "models":
        yield ("train", *keys[2:])


def at(document: Any, keys: Sequence[int | str]) -> Any:
    """The value in a document at these keys; None if there is none."""
    for key in keys:
        if isinstance(document, dict):
            document = document.get(key)
        elif isinstance(document, list) and isinstance(key, int) and key < len(document):
            document = document[key]
        else:
            return None
    return document


def _is_in(document: Any, keys: Sequence[int | str]) -> bool:
    group = at(document, keys[:-1])
    return isinstance(group, dict) and keys[-1] in group


def _keys(error: ErrorDetails) -> tuple[int | str, ...]:
    """The keys that lead to a mistake, without the kinds of groups, which are not keys."""
    keys = [*error["loc"], *error.get("ctx", {}).get("at", ())]
    for group in GROUPS_OF_KINDS:
        if group in keys[:-1]:
            del keys[keys.index(group) + 1]
    return tuple(keys)


def described(error: ErrorDetails, schema: type[BaseModel], prefix: tuple[str, ...] = ()) -> str:
    """One line for one mistake: the key, the value, what is allowed."""
    location = [as_key(part) for part in (*prefix, *_keys(error))]
    key, message = ".".join(location), error["msg"][0].lower() + error["msg"][1:]
    context = error.get("ctx", {})
    value = context.get("value", error["input"])
    match error["type"]:
        case "extra_forbidden":
            return f"{key}: no such setting; {_hint(location[-1], _keys_at(schema, error['loc'][:-1]))}"
        case "missing":
            return f"{key} is missing"
        case "union_tag_not_found":
            return f"{key}.name is missing"
        case "union_tag_invalid":
            key, value = f"{key}.name", context["tag"]
            message = f"input should be one of {context['expected_tags']}{_likely(value, context['expected_tags'])}"
        case "literal_error":
            message += _likely(value, context["expected"])
        case "model_type" | "model_attributes_type" | "dict_type":
            message = "expected a group of settings, {name: value, ...}"
        case "too_short":
            message = f"give at least {context['min_length']}"
        case "value_error":
            message = str(context["error"])
        case "tied_sizes_differ":
            message = "embedding_size and hidden_size must be equal for that"
        case "too_many_generations":
            return f"{key}: teachers of teachers of teachers: {MOST_GENERATIONS} generations at most: leave some out"
    if location and location[-1] == "[key]":
        letters = f"lower-case letters, digits and underscores, {LONGEST_NAME} at most"
        return f"{'.'.join(location[:-1])}: a name here may have {letters}"
    return f"{key} = {shown(value)}: {message}"


def as_key(part: int | str) -> str:
    """A key as in the file, if that is a short line of text."""
    key = str(part) if isinstance(part, str) or abs(part) < 10**9 else shown(part)
    return key if key.isprintable() and len(key) <= LONGEST_NAME else shown(key)


def _hint(key: str, known: Sequence[str]) -> str:
    close = close_to(key, known)
    return f"did you mean {close}?" if close else f"known here: {', '.join(known)}"


def _likely(value: Any, expected: str) -> str:
    """expected: pydantic's list, such as `'sgd' or 'adamw'`"""
    close = close_to(value, re.findall(r"'(\w+)'", expected)) if isinstance(value, str) else None
    return f"; did you mean {close}?" if close else ""


def close_to(name: str, known: Sequence[str]) -> str | None:
    """The known name that was probably meant: by its name in other projects, or by its spelling."""
    usual = USUAL_NAMES.get(name.lower(), "")
    if usual.partition(".")[0] in known:
        return usual
    return next(iter(difflib.get_close_matches(name.lower(), known, n=1)), None)


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
