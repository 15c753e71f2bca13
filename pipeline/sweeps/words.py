"""What a trial tries, in words."""

from collections.abc import Mapping
from typing import Any

from pipeline.sweeps.space import OneOf, Pick, searched
from pipeline.sweeps.sweep_file import Sweep


def in_words(tried: Mapping[str, Any]) -> str:
    """`cell lstm, learning_rate 0.5`."""
    return ", ".join(f"{name} {short(value)}" for name, value in tried.items() if value is not None)


def group_name(sweep: Sweep, pick: Pick) -> str:
    """What `pick` chooses apart from the seed, in words: names of bundles, settings with values; or else the model."""
    nodes = searched(sweep.space)
    words = [
        value if isinstance(nodes[name], OneOf) else in_words({name: value})
        for name, value in sweep.tried(pick).items()
        if name != "seed" and value is not None
    ]
    return ", ".join(words) or sweep.model


def short(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return f"{value}"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"
