"""The figures: drawn without a display, and the same bytes for the same numbers."""

import math
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from pipeline.files import atomic_write
from pipeline.history import best_epoch
from pipeline.lm.record import EpochRecord

History = Sequence[EpochRecord]

WIDTH = 8.0  # inches: 768 pixels on a page, about the width of GitHub's text
INK, MUTED, GRID, SHADE = "#1f2328", "#59636e", "#e4e7eb", "#f7ede2"
# Pairs of a dark and a lighter shade of one hue. The hues stay apart for the colour-blind, the shades in grey print.
COLORS = ("#0b4f8a", "#4d9de0", "#a63c06", "#ef8e33", "#1b6b4a", "#58b78c", "#6b3a85", "#b98ad1")
MARKERS = "osD^vPXp"
BEST: dict[str, Any] = {"markeredgecolor": "white", "markersize": 8, "clip_on": False, "zorder": 3}
FARTHEST = 3.0  # times the best perplexity: worse trials of a sweep are not told apart
BAND = 0.08  # of the values around a mark
ABOVE = 1.12  # where an axis from 0 to 1 has what it has no place for
MOST_NAMES = 6  # so many different numbers are marked one by one
HALO: dict[str, Any] = {"bbox": {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.edgecolor": "#b1b8c0",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.bottom": False,
    "ytick.left": False,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 2.4,
    "figure.facecolor": "white",  # readable on dark pages too
    "svg.fonttype": "path",
    "svg.hashsalt": "pipeline",
}


def curves(histories: Mapping[str, History], path: Path) -> None:
    """Draw train and valid perplexity by epoch, a panel for each model, the best epoch marked."""
    columns = min(2, len(histories))
    epochs = max(map(len, histories.values()))
    rows = math.ceil(len(histories) / columns)
    with _figure(path, width=WIDTH, height=0.6 + 2.5 * rows) as figure:
        panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
        for axes, (model, history) in zip(panels, histories.items(), strict=False):
            _draw_curve(axes, history, epochs)
            axes.set_title(model, loc="left", fontsize=10, fontweight="bold", pad=8)
        for unused in panels[len(histories) :]:
            unused.remove()
        _perplexity_axis(panels[0], histories.values(), ["train_perplexity", "valid_perplexity"])
        for axes in panels[::columns]:
            axes.set_ylabel("perplexity")
        for axes in panels[: len(histories)][-columns:]:  # the lowest of each column
            axes.tick_params(labelbottom=True)
            _epoch_axis(axes, histories.values())
        _curve_legend(figure)


def curve(history: History, path: Path) -> None:
    """Draw train and valid perplexity by epoch of one run."""
    with _figure(path, width=6, height=3.8) as figure:
        axes = figure.subplots()
        _draw_curve(axes, history, len(history))
        _perplexity_axis(axes, [history], ["train_perplexity", "valid_perplexity"])
        _epoch_axis(axes, [history])
        axes.set_ylabel("perplexity")
        _curve_legend(figure)


def comparison(histories: Mapping[str, History], path: Path) -> None:
    """Draw the valid perplexity of all models in one frame, the best epochs marked."""
    with _figure(path, width=WIDTH, height=4.4) as figure:
        axes = figure.subplots()
        for index, history in enumerate(histories.values()):
            best = best_epoch(history)
            axes.plot(*_points(history, "valid_perplexity"), color=_color(index))
            axes.plot(best.epoch, best.valid_perplexity, _marker(index), color=_color(index), **BEST)
        _perplexity_axis(axes, histories.values(), ["valid_perplexity"])
        _epoch_axis(axes, histories.values())
        axes.set_ylabel("valid perplexity")
        _label_lines(axes, histories)


def learning_rates(histories: Mapping[str, History], path: Path) -> None:
    """Draw the learning rate by epoch; models that share a schedule share a line and its label."""
    schedules: dict[tuple[float, ...], list[str]] = {}
    for model, history in histories.items():
        schedules.setdefault(tuple(record.learning_rate for record in history), []).append(model)
    with _figure(path, width=WIDTH, height=2.8) as figure:
        axes = figure.subplots()
        for index, (rates, models) in enumerate(schedules.items()):
            everything = len(schedules) == 1 and len(models) > 1
            label = "all models" if everything else textwrap.fill(", ".join(models), width=30)
            epochs = range(1, len(rates) + 1)
            over_longer_ones = 2 + 1 / len(rates)
            axes.plot(epochs, rates, color=_color(index), marker=_dots(rates), label=label, zorder=over_longer_ones)
        _epoch_axis(axes, histories.values())
        axes.set_ylim(bottom=0)
        axes.set_ylabel("learning rate")
        figure.legend(loc="outside right upper")


def recipes(runs: Mapping[str, tuple[History, float]], published: Mapping[str, float], path: Path) -> None:
    """Draw each run's valid perplexity by epoch and its test perplexity at the best epoch, beside published ones.

    runs: history and test perplexity by label; published: test perplexity by label
    """
    with _figure(path, width=WIDTH, height=4.8) as figure:
        axes = figure.subplots()
        histories = [history for history, _ in runs.values()]
        low = min([test for _, test in runs.values()] + list(published.values()))
        for index, (label, (history, test)) in enumerate(runs.items()):
            best, color = best_epoch(history), _color(index)
            axes.plot(*_points(history, "valid_perplexity"), color=color, linewidth=1.2)
            axes.plot([best.epoch] * 2, [best.valid_perplexity, test], color=color, linewidth=0.8, linestyle=":")
            axes.plot(best.epoch, test, _marker(index), color=color, label=f"{label}: {test:.1f}", **BEST)
        for label, test in published.items():
            axes.axhline(test, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0.9)
            style: dict[str, Any] = {"zorder": 1, "bbox": {"facecolor": "white", "linewidth": 0, "pad": 1}}
            axes.annotate(f"{test:g}  {label}", (1, test), (4, 0), textcoords="offset points", va="center", **style)
        axes.set_yscale("log")
        axes.set_ylim(low / 1.05, 3 * low)
        axes.yaxis.set_major_locator(FixedLocator(_round_numbers(*axes.get_ylim())))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_xscale("log")
        axes.set_xlim(1, 1.05 * max(map(len, histories)))
        axes.xaxis.set_major_locator(FixedLocator(_round_numbers(*axes.get_xlim())))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_xlabel("epoch")
        axes.set_ylabel("perplexity: lines valid, marks test")
        axes.legend(loc="upper right", title="test perplexity", alignment="left")


def parallel_coordinates(
    columns: Mapping[str, Sequence[Any]],
    logarithmic: Collection[str],
    perplexities: Sequence[float],
    complete: Sequence[bool],
    path: Path,
) -> None:
    """Draw the trials of a sweep, each a line through what it tried, on an axis for each setting, to its perplexity.

    columns: each setting's value by trial, the best trial first; numbers have a scale, all else is told apart by name
    logarithmic: the settings whose scale is
    perplexities: by trial, infinite for one that diverged; far worse ones than the best end above the axis
    complete: by trial, whether it was trained to its end
    """
    ceiling = FARTHEST * min(perplexities, default=1.0)
    ends = [value if value <= ceiling and math.isfinite(value) else None for value in perplexities]
    scales = [_scale(values, name in logarithmic) for name, values in columns.items()]
    scales.append(_scale(ends, logarithmic=True, most_names=1, missing="worse"))
    with _figure(path, width=max(WIDTH, 1.3 * len(scales)), height=4.4) as figure:
        axes = figure.subplots()
        axes.grid(visible=False)
        for trial in reversed(range(len(ends))):
            heights = [positions[trial] for positions, _ in scales]
            if trial == 0 and complete[trial]:
                axes.plot(heights, color=COLORS[2], linewidth=2.6, marker="o", **BEST)
            elif complete[trial]:
                axes.plot(heights, color=COLORS[0], linewidth=1.2, alpha=0.75)
            else:
                axes.plot(heights, color=MUTED, linewidth=0.8, alpha=0.5, linestyle="--")
        for x, (_, ticks) in enumerate(scales):
            axes.axvline(x, color=INK, linewidth=0.8, ymin=0.04, ymax=0.96)
            for height, label in ticks.items():
                axes.annotate(label, (x, height), (4, 0), textcoords="offset points", va="center", fontsize=8, **HALO)
        axes.set_xlim(-0.1, len(scales) - 0.6)
        axes.set_ylim(-0.05, 1.2)
        axes.set_xticks(range(len(scales)), [*columns, "valid perplexity"], color=INK)
        axes.set_yticks([])
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        figure.legend(
            handles=[
                Line2D([], [], color=COLORS[2], linewidth=2.6, label="best"),
                Line2D([], [], color=COLORS[0], linewidth=1.2, label="complete"),
                Line2D([], [], color=MUTED, linewidth=0.8, linestyle="--", label="pruned or diverged"),
            ],
            loc="outside upper right",
            ncols=3,
        )


def _scale(
    values: Sequence[Any], logarithmic: bool, most_names: int = MOST_NAMES, missing: str = "none"
) -> tuple[list[float], dict[float, str]]:
    """The heights of values on an axis from 0 to 1, a missing one's above it, and the labels by height.

    More numbers than `most_names` have a scale; other values have each a mark, and are spread around it so that the
    lines through it can be told apart.
    """
    present = {value for value in values if value is not None}
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in present)
    in_order = sorted(present, key=None if numbers else str)
    if numbers and len(present) > most_names:
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


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of a size in inches, saved when the block ends, in the format that the path's suffix names."""
    dates_and_versions = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
    kind = path.suffix.removeprefix(".")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
        yield figure
        with atomic_write(path, "wb") as file:
            figure.savefig(file, format=kind, metadata=dates_and_versions[kind])


def _draw_curve(axes: Axes, history: History, epochs: int) -> None:
    """Draw one model's curves on an axis of so many epochs."""
    best, last = best_epoch(history), history[-1]
    if best.epoch < last.epoch:
        axes.axvspan(best.epoch, last.epoch, color=SHADE, linewidth=0, zorder=0)
    axes.axvline(best.epoch, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.plot(*_points(history, "train_perplexity"), color=MUTED, linewidth=1.4, linestyle="--", marker=_dots(history))
    axes.plot(*_points(history, "valid_perplexity"), color=COLORS[0], marker=_dots(history))
    axes.plot(best.epoch, best.valid_perplexity, "o", color=COLORS[0], **BEST)
    late = best.epoch > epochs / 2
    axes.annotate(
        f"{best.valid_perplexity:.2f} at epoch {best.epoch}",
        xy=(best.epoch, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-4 if late else 4, -3),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top",
    )


def _curve_legend(figure: Figure) -> None:
    handles = [
        Line2D([], [], color=COLORS[0], label="valid"),
        Line2D([], [], color=MUTED, linewidth=1.4, linestyle="--", label="train"),
        Line2D([], [], color=COLORS[0], marker="o", linewidth=0, label="best", **BEST),
        Patch(color=SHADE, label="after the best epoch"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))


def _label_lines(axes: Axes, histories: Mapping[str, History]) -> None:
    """Name each line at the right of the frame, level with its last value where there is room."""
    to_axes = axes.transData + axes.transAxes.inverted()
    named = sorted(enumerate(histories.items()), key=lambda item: item[1][1][-1].valid_perplexity)
    ends = [tuple(to_axes.transform((h[-1].epoch, h[-1].valid_perplexity))) for _, (_, h) in named]
    heights = spread([y for _, y in ends], gap=0.11)
    for (index, (model, history)), (x, y), height in zip(named, ends, heights, strict=True):
        color, best = _color(index), best_epoch(history)
        leader: dict[str, Any] = {"color": color, "transform": axes.transAxes, "clip_on": False}
        axes.plot([x, 1.01], [y, y], linewidth=0.8, linestyle=":", **leader)
        axes.plot([1.01, 1.04], [y, height], linewidth=0.8, **leader)
        axes.plot(1.055, height, _marker(index), **(BEST | leader))
        text = f"{model}\n{best.valid_perplexity:.2f} at epoch {best.epoch}"
        axes.text(1.075, height, text, transform=axes.transAxes, va="center", linespacing=1.35)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move rising heights in [0, 1] apart until neighbours are at least `gap` apart (less if there is no room)."""
    gap = min(gap, 1 / max(1, len(heights) - 1))
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else max(height, 0.0))
    ceiling = 1.0
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed


def _perplexity_axis(axes: Axes, histories: Iterable[History], fields: Sequence[str]) -> None:
    """A logarithmic axis that holds all but the first tenth of the epochs, which start far above the others."""
    values = [getattr(r, field) for history in histories for r in history[len(history) // 10 :] for field in fields]
    low, high = min(values), max(values)
    margin = max(high / low, 1.1) ** 0.08
    axes.set_yscale("log")
    axes.set_ylim(low / margin, high * margin**2)
    axes.yaxis.set_major_locator(FixedLocator(_round_numbers(*axes.get_ylim())))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _round_numbers(low: float, high: float, most: int = 8) -> list[float]:
    """Round numbers between two limits, at most so many, to mark on a logarithmic axis."""
    if high < 2 * low:
        return list(MaxNLocator(most - 2, steps=[1, 2, 5, 10]).tick_values(low, high))
    inside: list[float] = []
    for digits in ([1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8], [1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1]):
        inside = [digit * 10**power for power in range(12) for digit in digits if low <= digit * 10**power <= high]
        if len(inside) <= most:
            break
    return inside


def _epoch_axis(axes: Axes, histories: Iterable[History]) -> None:
    axes.set_xlim(0.5, max(map(len, histories)) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch")


def _points(history: History, field: str) -> tuple[list[int], list[float]]:
    return [record.epoch for record in history], [getattr(record, field) for record in history]


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def _marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def _dots(points: Sequence) -> str | None:
    """A marker for a line of one point, which would not show otherwise."""
    return "." if len(points) == 1 else None
