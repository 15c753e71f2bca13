"""What tells runs apart on MLflow's page: names that say what differs, and the report's colours."""

import colorsys
import json
from collections.abc import Iterator

from pipeline.lm.settings import Settings
from pipeline.project.console import UserError
from pipeline.project.files import PARAMS
from pipeline.project.params import load_params, parse_params, parse_yaml
from pipeline.project.recipes import committed_params
from pipeline.project.schema import Params
from pipeline.project.settings import flattened

MOST_DIFFERENCES = 3  # in a name
SHADES = 12


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


def shades(model: str) -> list[str]:
    """The report's colour of a model, then others around its hue, lighter and darker in turn; empty if unknown."""
    try:
        models = list(load_params().models)
    except UserError:
        return []
    if model not in models:
        return []
    from pipeline.reporting.style import color_of  # matplotlib takes a second to import

    return list(_shades(color_of(models.index(model))))


def _shades(color: str) -> Iterator[str]:
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    for step in range(SHADES):
        turned = hue + 0.03 * ((step + 1) // 2) * (-1) ** step
        shade = colorsys.hls_to_rgb(turned % 1, lightness + (0.14 if step % 2 else 0), saturation)
        yield "#" + "".join(f"{round(part * 255):02x}" for part in shade)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
