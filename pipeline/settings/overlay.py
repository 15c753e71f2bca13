"""A model's settings as they are written and shown: merged into others, and flat, by dotted name."""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.lm.settings import Settings


def overlay(shared: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a model's settings into the shared ones, group by group, and its teachers' settings into its own."""
    merged = dict(shared)
    for key, value in overrides.items():
        group = shared.get(key)
        merged[key] = group | value if isinstance(group, dict) and merges(group, value) else value
    distillation = merged.get("distillation")
    if isinstance(distillation, dict) and isinstance(teachers := distillation.get("teachers"), list):
        own = {key: value for key, value in merged.items() if key != "distillation"}
        complete = [overlay(own, teacher) if isinstance(teacher, dict) else teacher for teacher in teachers]
        merged["distillation"] = distillation | {"teachers": complete}
    return merged


def merges(group: Mapping[str, Any], value: object) -> bool:
    """Whether a value is merged into a group key by key: a group of the same kind; another `name` replaces it."""
    return isinstance(value, dict) and value.get("name") in (None, group.get("name"))


def flattened(settings: Settings, *, essential: bool = False) -> dict[str, object]:
    """Settings by dotted name, such as `optimizer.momentum`: all, or those that differ from their defaults.

    Of each teacher, such as `distillation.teachers.1.cell`, only what differs from the model itself.
    """
    own = _flatten(settings.model_dump())
    found = _flatten(settings.essentials()) if essential else dict(own)
    if settings.distillation:
        found["distillation.teachers"] = len(settings.teachers)
    for index, teacher in enumerate(settings.teachers):
        theirs = {name: value for name, value in flattened(teacher).items() if name != "distillation"}
        differing = {name: value for name, value in theirs.items() if name not in own or value != own[name]}
        found |= {f"distillation.teachers.{index}.{name}": value for name, value in differing.items()}
    return found


def _flatten(settings: Mapping[str, Any]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in settings.items():
        flat |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def as_text(value: object) -> str:
    """A setting's value in a table or a name: `adamw`, `0.5`, `null`."""
    return value if isinstance(value, str) else json.dumps(value)


def nested(flat: Mapping[str, object]) -> dict[str, Any]:
    """The inverse of `flattened`: `{"optimizer.name": "sgd"}` as `{"optimizer": {"name": "sgd"}}`."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, key = name.split(".")
        inner = nested
        for group in groups:
            if not isinstance(inner.get(group), dict):
                inner[group] = {}
            inner = inner[group]
        inner[key] = value
    return nested
