"""What tells runs apart on MLflow's page: names that say what differs, and the report's colours."""

import json
import math
from collections.abc import Collection, Sequence

from pipeline.lm.settings import Settings
from pipeline.project.console import UserError
from pipeline.project.files import PARAMS
from pipeline.settings.overlay import flattened
from pipeline.settings.params import load_params, parse_params, parse_yaml
from pipeline.settings.recipes import committed_params
from pipeline.settings.schema import Params

MOST_DIFFERENCES = 3  # in a name
PALETTES = ("petroff10", "Dark2", "tab10", "tab20b")  # of matplotlib's


def run_name(model: str, settings: Settings, recipe: str | None) -> str:
    """The model's name and what differs from params.yaml as committed, such as `gru · epochs 3`."""
    committed = read_params(committed_params() or "")
    if committed is None or model not in committed.models:
        return model
    before = flattened(committed.models[model])
    found = [f"{name} {_text(value)}" for name, value in flattened(settings).items() if before.get(name) != value]
    if found and recipe not in (None, committed.recipe):
        found.insert(0, f"recipe {recipe}")
    more = f" and {len(found) - MOST_DIFFERENCES} more" if len(found) > MOST_DIFFERENCES else ""
    return f"{model} · {', '.join(found[:MOST_DIFFERENCES])}{more}" if found else model


def read_params(text: str) -> Params | None:
    """Parse a params file; None if the text is not one, or is of another version of this project."""
    try:
        return parse_params(parse_yaml(text, PARAMS), PARAMS)
    except UserError:
        return None


def color_for(model: str, taken: Collection[str]) -> str:
    """The report's colour of a model; if a run has it already, or there is none, the one least like those taken."""
    from matplotlib import color_sequences  # takes a second to import
    from matplotlib.colors import to_hex

    from pipeline.reporting.style import COLORS, color_of

    try:
        models = list(load_params().models)
    except UserError:
        models = []
    if model in models and (own := color_of(models.index(model))) not in taken:
        return own
    others = [_parts(color) for color in {*taken, *COLORS[: len(models)], "#ffffff"}]
    palette = [to_hex(color) for name in PALETTES for color in color_sequences[name]]
    return max(palette, key=lambda color: min(_difference(_parts(color), other) for other in others))


def _parts(color: str) -> list[int]:
    return [int(color[start : start + 2], 16) for start in (1, 3, 5)]


def _difference(one: Sequence[int], other: Sequence[int]) -> float:
    """How different two colours look, about: from 0 to 765 (https://www.compuphase.com/cmetric.htm)."""
    red = (one[0] + other[0]) / 512
    weights = (2 + red, 4, 3 - red)
    return math.sqrt(sum(weight * (a - b) ** 2 for weight, a, b in zip(weights, one, other, strict=True)))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
