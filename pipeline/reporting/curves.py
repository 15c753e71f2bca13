"""Curves of perplexity and learning rate by epoch."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline.artifacts.history import best_epoch
from pipeline.reporting.style import (
    BEST,
    COLORS,
    MUTED,
    SHADE,
    WIDTH,
    History,
    color_of,
    dots,
    drawn,
    epoch_axis,
    marker_of,
    perplexity_axis,
    points,
)


def curves(histories: Mapping[str, History], path: Path) -> None:
    """Draw training and validation perplexity by epoch, one panel per model, with the best epoch marked."""
    columns = min(2, len(histories))
    epochs = max(map(len, histories.values()))
    rows = math.ceil(len(histories) / columns)
    with drawn(path, width=WIDTH, height=0.6 + 2.5 * rows) as figure:
        panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
        for axes, (model, history) in zip(panels, histories.items(), strict=False):
            _draw_curve(axes, history, epochs)
            axes.set_title(model, loc="left", fontsize=10, fontweight="bold", pad=8)
        for unused in panels[len(histories) :]:
            unused.remove()
        perplexity_axis(panels[0], histories.values(), ["train_perplexity", "valid_perplexity"])
        for axes in panels[::columns]:
            axes.set_ylabel("perplexity")
        for axes in panels[: len(histories)][-columns:]:  # the lowest of each column
            axes.tick_params(labelbottom=True)
            epoch_axis(axes, histories.values())
        _curve_legend(figure)


def curve(history: History, path: Path) -> None:
    """Draw training and validation perplexity by epoch for one run."""
    with drawn(path, width=6, height=3.8) as figure:
        axes = figure.subplots()
        _draw_curve(axes, history, len(history))
        perplexity_axis(axes, [history], ["train_perplexity", "valid_perplexity"])
        epoch_axis(axes, [history])
        axes.set_ylabel("perplexity")
        _curve_legend(figure)


def comparison(histories: Mapping[str, History], path: Path) -> None:
    """Draw the validation perplexity of all models in one frame, with the best epochs marked."""
    with drawn(path, width=WIDTH, height=4.4) as figure:
        axes = figure.subplots()
        for index, history in enumerate(histories.values()):
            best = best_epoch(history)
            axes.plot(*points(history, "valid_perplexity"), color=color_of(index))
            axes.plot(best.epoch, best.valid_perplexity, marker_of(index), color=color_of(index), **BEST)
        perplexity_axis(axes, histories.values(), ["valid_perplexity"])
        epoch_axis(axes, histories.values())
        axes.set_ylabel("validation perplexity")
        _label_lines(axes, histories)


def learning_rates(histories: Mapping[str, History], path: Path) -> None:
    """Draw the learning rate by epoch; models that share a schedule share a line and its label."""
    schedules: dict[tuple[float, ...], list[str]] = {}
    for model, history in histories.items():
        schedules.setdefault(tuple(record.learning_rate for record in history), []).append(model)
    with drawn(path, width=WIDTH, height=2.8) as figure:
        axes = figure.subplots()
        for index, (rates, models) in enumerate(schedules.items()):
            everything = len(schedules) == 1 and len(models) > 1
            label = "all models" if everything else textwrap.fill(", ".join(models), width=30)
            epochs = range(1, len(rates) + 1)
            over_longer_ones = 2 + 1 / len(rates)
            axes.plot(epochs, rates, color=color_of(index), marker=dots(rates), label=label, zorder=over_longer_ones)
        epoch_axis(axes, histories.values())
        axes.set_ylim(bottom=0)
        axes.set_ylabel("learning rate")
        figure.legend(loc="outside right upper")


def _draw_curve(axes: Axes, history: History, epochs: int) -> None:
    """Draw one model's curves on an axis with a given number of epochs."""
    best, last = best_epoch(history), history[-1]
    if best.epoch < last.epoch:
        axes.axvspan(best.epoch, last.epoch, color=SHADE, linewidth=0, zorder=0)
    axes.axvline(best.epoch, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.plot(*points(history, "train_perplexity"), color=MUTED, linewidth=1.4, linestyle="--", marker=dots(history))
    axes.plot(*points(history, "valid_perplexity"), color=COLORS[0], marker=dots(history))
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
    """Label each line to the right of the frame, level with its last value if there is room."""
    to_axes = axes.transData + axes.transAxes.inverted()
    named = sorted(enumerate(histories.items()), key=lambda item: item[1][1][-1].valid_perplexity)
    ends = [tuple(to_axes.transform((h[-1].epoch, h[-1].valid_perplexity))) for _, (_, h) in named]
    heights = spaced([y for _, y in ends], gap=0.11)
    for (index, (model, history)), (x, y), height in zip(named, ends, heights, strict=True):
        color, best = color_of(index), best_epoch(history)
        leader: dict[str, Any] = {"color": color, "transform": axes.transAxes, "clip_on": False}
        axes.plot([x, 1.01], [y, y], linewidth=0.8, linestyle=":", **leader)
        axes.plot([1.01, 1.04], [y, height], linewidth=0.8, **leader)
        axes.plot(1.055, height, marker_of(index), **(BEST | leader))
        text = f"{model}\n{best.valid_perplexity:.2f} at epoch {best.epoch}"
        axes.text(1.075, height, text, transform=axes.transAxes, va="center", linespacing=1.35)


def spaced(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights in [0, 1] until neighbours are at least `gap` apart (less if there is no room)."""
    gap = min(gap, 1 / max(1, len(heights) - 1))
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else max(height, 0.0))
    ceiling = 1.0
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed
