"""The perplexity that each seed reached, group by group."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.reporting.spread import Group, spread
from pipeline.reporting.style import BEST, INK, WIDTH, color_of, drawn, marker_of


def seed_points(groups: Sequence[Group], path: Path) -> None:
    """Draw a row for each group with a point for every seed and a stroke at the mean, a panel for each split."""
    splits = list(groups[0].perplexities)
    with drawn(path, width=WIDTH, height=1.0 + 0.45 * len(groups)) as figure:
        panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
        for axes, split in zip(panels, splits, strict=True):
            axes.set_title(split, loc="left", fontsize=10, fontweight="bold")
            axes.set_xlabel("perplexity")
            for row, group in enumerate(groups):
                if values := list(group.perplexities.get(split, {}).values()):
                    found = spread(values)
                    axes.plot(values, [row] * len(values), marker_of(row), color=color_of(row), alpha=0.8, **BEST)
                    axes.plot([found.mean] * 2, [row - 0.3, row + 0.3], color=INK, linewidth=1.2)
                    text = f"{found.mean:.2f}"
                    if found.standard_deviation is not None:
                        text += f" ± {found.standard_deviation:.2f}"
                    axes.annotate(text, (found.mean, row - 0.3), (0, 2), textcoords="offset points", ha="center")
            axes.margins(x=0.2)
        panels[0].set_yticks(range(len(groups)), [group.name for group in groups], color=INK)
        panels[0].set_ylim(len(groups) - 0.5, -0.8)
        figure.supxlabel("one point for each seed; mean ± standard deviation", fontsize=8.5)
