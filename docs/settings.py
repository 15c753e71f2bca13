"""Write settings.md: every setting of params.yaml, from the schema that checks them.

python docs/settings.py
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.settings.schema import Params

PAGE = Path(__file__).with_suffix(".md")
KEPT_SETTINGS = PAGE.with_name("recipes") / "settings.json"  # of `default`, as params.yaml comes with the clone

INTRODUCTION = """\
# Settings

Every setting of `params.yaml`. Settings under `train` are shared by all models; a model's line under `models`, or a
recipe, may override any of them. DVC reruns only what an edit affects. `python -m pipeline.params` checks the file
without running anything.

```yaml
models:
  gru: {cell: gru, dropout: 0.0, learning_rate: 0.3}   # the learning rate of this model alone
```

**Which to change first.** For a better model: `tied_weights: true`, then `schedule: {name: linear, warmup: 0.02}` with
the learning rate that suits it, then `dropout` (more for a larger model or a smaller text). For a shorter training:
fewer `epochs` with a linear schedule, then AdamW at 0.005 with `unigram_bias: true`. For a larger model: `hidden_size`
and `embedding_size` together. [Recipes](recipes.md) show what such changes bring.

(`python docs/settings.py` writes this page from the schema that checks `params.yaml`.)
"""

SECTIONS = {
    "": "The whole file",
    "download": "`download`",
    "preprocess": "`preprocess`",
    "train": "`train`, and each model under `models`",
    "evaluate": "`evaluate`",
    "report": "`report`",
}


def page() -> str:
    """The whole page."""
    schema = Params.model_json_schema()
    values = {"train": json.loads(KEPT_SETTINGS.read_text())["default-lstm"]}
    top = {name: field for name, field in schema["properties"].items() if name not in (*SECTIONS, "models")}
    blocks = [INTRODUCTION + heading(""), table(rows(top, schema, {}))]
    for section in filter(None, SECTIONS):
        fields = resolved(schema["properties"][section], schema)["properties"]
        blocks += [heading(section), table(rows(fields, schema, values.get(section, {})))]
    return "\n".join(blocks)


def heading(section: str) -> str:
    return f"\n## {SECTIONS[section]}\n"


def rows(fields: dict[str, Any], schema: dict[str, Any], values: Any, prefix: str = "") -> list[list[str]]:
    """Name, default, what it may be, and what it does; the settings of a group come after its own row."""
    found = []
    for name, field in fields.items():
        value = values.get(name, field.get("default", "")) if isinstance(values, dict) else ""
        groups = [group for option in options(field) if "properties" in (group := resolved(option, schema))]
        described = field.get("description") or next((group.get("description", "") for group in groups), "")
        kinds = [kind for option in options(field) if (kind := words(option, schema))]
        shown = as_written(value) if value not in ("", {}) and not isinstance(value, dict) else ""
        found.append([f"`{prefix}{name}`", shown, " or ".join(kinds), " ".join(described.split())])
        for group in groups:
            found += rows(of_group(group), schema, value, f"{prefix}{name}.")
        for option in options(field):
            for by_name in option.get("patternProperties", {}).values():
                found += rows(resolved(by_name, schema)["properties"], schema, {}, f"{prefix}{name}.MODEL.")
    return found


def of_group(group: dict[str, Any]) -> dict[str, Any]:
    """The fields of a group, each saying which kind of the group has it, if it has kinds."""
    fields = dict(group["properties"])
    kind = fields.pop("name", {}).get("const")
    if not kind:
        return group["properties"]
    return {name: field | {"description": f"({kind}) {field.get('description', '')}"} for name, field in fields.items()}


def resolved(field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A field itself, where it names a definition."""
    return schema["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else field


def options(field: dict[str, Any]) -> list[dict[str, Any]]:
    """The kinds of value that a field may have."""
    return field.get("anyOf") or field.get("oneOf") or [field]


def words(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """What a value may be: `0 to 1`, `` `lstm` or `gru` ``, `text`."""
    if "$ref" in field:
        name = resolved(field, schema)["properties"].get("name", {}).get("const")
        return f"`{{name: {name}, ...}}`" if name else "a group"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    kind = field.get("type")
    if kind in ("integer", "number"):
        return bounds(field, "whole number" if kind == "integer" else "number")
    if kind == "array":
        return "a list"
    if kind == "object":
        return "a group by name"
    return {"boolean": "`true`, `false`", "null": "`null`", "string": "text"}.get(str(kind), "")


def bounds(field: dict[str, Any], kind: str) -> str:
    """A number's range."""
    names = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return " ".join([kind, *(f"{word} {field[name]:,.10g}" for name, word in names.items() if name in field)])


def as_written(value: Any) -> str:
    """As YAML has it."""
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def table(body: list[list[str]]) -> str:
    header = ["setting", "default", "may be", "what it does"]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *body])


if __name__ == "__main__":
    PAGE.write_text(page() + "\n")
