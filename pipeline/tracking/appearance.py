"""How runs are told apart on MLflow's page: names that say what differs, and the report's colours."""

from collections.abc import Sequence
from contextlib import suppress

from pipeline.lm.settings import Settings
from pipeline.project.console import UserError
from pipeline.project.files import PARAMS
from pipeline.settings.overlay import as_text, flattened
from pipeline.settings.params import load_params, parse_params, parse_yaml
from pipeline.settings.recipes import committed_params
from pipeline.settings.schema import Params

MOST_DIFFERENCES = 3  # in a name

# Different from the report's and from each other, the most distinct first.
MORE_COLORS = ("#e7298a", "#bcbd22", "#ff9896", "#2ca02c", "#b9ac70", "#7f7f7f", "#843c39", "#17becf", "#832db6")


def run_name(model: str, settings: Settings, recipe: str | None) -> str:
    """The model's name and what differs from params.yaml as committed, such as `gru · epochs 3`."""
    committed = read_params(committed_params() or "")
    if committed is None or model not in committed.models:
        return model
    before = flattened(committed.models[model])
    found = [f"{name} {as_text(value)}" for name, value in flattened(settings).items() if before.get(name) != value]
    if found and recipe not in (None, committed.recipe):
        found.insert(0, f"recipe {recipe}")
    more = f" and {len(found) - MOST_DIFFERENCES} more" if len(found) > MOST_DIFFERENCES else ""
    return f"{model} · {', '.join(found[:MOST_DIFFERENCES])}{more}" if found else model


def read_params(text: str) -> Params | None:
    """Parse a params file; None if it is invalid or from another version of this project."""
    with suppress(UserError):
        return parse_params(parse_yaml(text, PARAMS), PARAMS)
    return None


def color_for(model: str, taken: Sequence[str]) -> str:
    """The report's colour of a model; if a run already has it, or there is none, the one that the fewest runs have."""
    from pipeline.reporting.style import color_of  # matplotlib takes a second to import

    with suppress(UserError):
        models = list(load_params().models)
        if model in models and (own := color_of(models.index(model))) not in taken:
            return own
    return min(MORE_COLORS, key=taken.count)
