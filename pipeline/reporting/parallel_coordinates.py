"""The trials of a sweep, each a line through what it tried."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from pipeline.reporting.style import BEST, COLORS, INK, MUTED, WIDTH, drawn

FARTHEST = 3.0  # times the best perplexity: worse trials are not told apart
BAND = 0.08  # height of the band of values around a mark
ABOVE = 1.12  # where an axis from 0 to 1 shows values that do not fit on it
MOST_NAMES = 6  # up to this many different numbers are marked one by one
LINES: dict[str, dict[str, Any]] = {  # by the state of a trial
    "best": {"color": COLORS[2], "linewidth": 2.6},
    "complete": {"color": COLORS[0], "linewidth": 1.2},
    "pruned or diverged": {"color": MUTED, "linewidth": 0.8, "linestyle": "--"},
}
ON_THE_AXES: dict[str, dict[str, Any]] = {
    "best": {"marker": "o", **BEST},
    "complete": {"alpha": 0.75},
    "pruned or diverged": {"alpha": 0.5},
}
HALO: dict[str, Any] = {"bbox": {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}}


def parallel_coordinates(
    columns: Mapping[str, Sequence[Any]],
    ranges: Mapping[str, bool],
    perplexities: Sequence[float],
    complete: Sequence[bool],
    path: Path,
) -> None:
    """Draw the trials of a sweep, each a line through what it tried, on an axis for each setting, to its perplexity.

    columns: each setting's value by trial, the best trial first
    ranges: the settings that are numbers from a range, and whether its scale is logarithmic; of the others, those with
        few different values have a mark for each
    perplexities: by trial, infinite for one that diverged; those far worse than the best end above the axis
    complete: by trial, whether it was trained to its end
    """
    ceiling = FARTHEST * min(perplexities, default=1.0)
    ends = [value if value <= ceiling and math.isfinite(value) else None for value in perplexities]
    scales = [
        _scale(values, ranges.get(name, False), 1 if name in ranges else MOST_NAMES) for name, values in columns.items()
    ]
    scales.append(_scale(ends, logarithmic=True, most_names=1, missing="worse"))
    with drawn(path, width=max(WIDTH, 1.3 * len(scales)), height=4.4) as figure:
        axes = figure.subplots()
        axes.grid(visible=False)
        for trial in reversed(range(len(ends))):
            heights = [positions[trial] for positions, _ in scales]
            kind = "pruned or diverged" if not complete[trial] else "complete" if trial else "best"
            axes.plot(heights, **LINES[kind], **ON_THE_AXES[kind])
        for x, (_, ticks) in enumerate(scales):
            axes.axvline(x, color=INK, linewidth=0.8, ymin=0.04, ymax=0.96)
            for height, label in ticks.items():
                axes.annotate(label, (x, height), (4, 0), textcoords="offset points", va="center", fontsize=8, **HALO)
        axes.set_xlim(-0.1, len(scales) - 0.6)
        axes.set_ylim(-0.05, 1.2)
        axes.set_xticks(range(len(scales)), [*columns, "validation perplexity"], color=INK)
        axes.set_yticks([])
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        handles = [Line2D([], [], label=kind, **line) for kind, line in LINES.items()]
        figure.legend(handles=handles, loc="outside upper right", ncols=3)


def _scale(
    values: Sequence[Any], logarithmic: bool, most_names: int = MOST_NAMES, missing: str = "none"
) -> tuple[list[float], dict[float, str]]:
    """The heights of values on an axis from 0 to 1, with missing ones above it, and the labels by height.

    More than `most_names` different numbers get a scale; other values get one mark each, and are spread around it so
    that the lines through it can be told apart.
    """
    present = {value for value in values if value is not None}
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in present)
    in_order = sorted(present, key=None if numbers else str)
    if numbers and len(present) > most_names:
        logarithmic = logarithmic and in_order[0] > 0  # the same setting may be 0 in another part of the space
        transform = math.log if logarithmic else float
        low, high = transform(in_order[0]), transform(in_order[-1])
        marks = _marks(in_order[0], in_order[-1], logarithmic)
        heights = {value: (transform(value) - low) / (high - low) for value in {*present, *marks}}
        ticks = {heights[mark]: f"{mark:g}" for mark in marks}
        band = 0.0
    else:
        band = BAND
        heights = {value: index / max(1, len(in_order) - 1) for index, value in enumerate(in_order)}
        ticks = {heights[value]: f"{value:.4g}" if isinstance(value, float) else str(value) for value in in_order}
    if None in values:
        ticks[ABOVE] = missing
    height = {None: ABOVE} | heights
    return [height[value] + band * (index / len(values) - 0.5) for index, value in enumerate(values)], ticks


def _marks(low: float, high: float, logarithmic: bool) -> list[float]:
    """Round numbers between two limits."""
    wide = logarithmic and high > 10 * low
    locator = LogLocator(subs=(1.0, 3.0)) if wide else MaxNLocator(5, steps=[1, 2, 5, 10])
    return [float(mark) for mark in locator.tick_values(low, high) if low <= mark <= high]
