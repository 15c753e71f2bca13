"""What all figures share: size, colours and axes. They are drawn without a display; equal numbers give equal bytes."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

from pipeline.lm.record import EpochRecord
from pipeline.project.files import atomic_write

History = Sequence[EpochRecord]

WIDTH = 8.0  # inches: 768 pixels on a page, about the width of GitHub's text
INK, MUTED, GRID, SHADE, EDGE = "#1f2328", "#59636e", "#e4e7eb", "#f7ede2", "#b1b8c0"
# Pairs of a dark and a lighter shade of one hue. Colour-blind readers can tell the hues apart, grey print the shades.
COLORS = ("#0b4f8a", "#4d9de0", "#a63c06", "#ef8e33", "#1b6b4a", "#58b78c", "#6b3a85", "#b98ad1")
MARKERS = "osD^vPXp"
# The colours that replace these if the reader's system is set to dark.
DARK = {
    "#ffffff": "#0d1117",
    INK: "#e6edf3",
    MUTED: "#9198a1",
    GRID: "#262c34",
    SHADE: "#241f1a",
    EDGE: "#4d555f",
} | dict(
    zip(
        COLORS,
        ("#4a94dc", "#a5d0f7", "#e0671f", "#f7b877", "#3aa878", "#96dbbb", "#a56cc4", "#d8b9ea"),
        strict=True,
    )
)
BEST: dict[str, Any] = {"markeredgecolor": "white", "markersize": 8, "clip_on": False, "zorder": 3}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so all machines draw the same
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.edgecolor": EDGE,
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
    "figure.facecolor": "white",  # not transparent: a page may be dark where the system is not
    "svg.fonttype": "path",
    "svg.hashsalt": "pipeline",
}


@contextmanager
def drawn(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure, its size given in inches, saved at the end of the block in the format of the path's suffix."""
    dates_and_versions = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
    kind = path.suffix.removeprefix(".")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
        yield figure
        image = BytesIO()
        figure.savefig(image, format=kind, metadata=dates_and_versions[kind])
    with atomic_write(path, "wb") as file:
        file.write(in_both_schemes(image.getvalue()) if kind == "svg" else image.getvalue())


def in_both_schemes(svg: bytes) -> bytes:
    """The same figure with a style sheet that replaces its colours if the reader's system is set to dark."""
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
        if f"{what}: {light}".encode() in svg
    )
    return svg.replace(b"</style>", f"\n@media (prefers-color-scheme: dark) {{{rules}}}</style>".encode(), 1)


def perplexity_axis(axes: Axes, histories: Iterable[History], fields: Sequence[str]) -> None:
    """A logarithmic axis that shows all but the first tenth of the epochs, which start far above the others."""
    values = [getattr(r, field) for history in histories for r in history[len(history) // 10 :] for field in fields]
    low, high = min(values), max(values)
    margin = max(high / low, 1.1) ** 0.08
    axes.set_yscale("log")
    axes.set_ylim(low / margin, high * margin**2)
    axes.yaxis.set_major_locator(FixedLocator(round_numbers(*axes.get_ylim())))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def round_numbers(low: float, high: float, most: int = 8) -> list[float]:
    """At most `most` round numbers between two limits, to mark on a logarithmic axis."""
    if high < 2 * low:
        return list(MaxNLocator(most - 2, steps=[1, 2, 5, 10]).tick_values(low, high))
    inside: list[float] = []
    for digits in ([1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8], [1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1]):
        inside = [digit * 10**power for power in range(12) for digit in digits if low <= digit * 10**power <= high]
        if len(inside) <= most:
            break
    return inside


def epoch_axis(axes: Axes, histories: Iterable[History]) -> None:
    axes.set_xlim(0.5, max(map(len, histories)) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch")


def points(history: History, field: str) -> tuple[list[int], list[float]]:
    return [record.epoch for record in history], [getattr(record, field) for record in history]


def color_of(index: int) -> str:
    return COLORS[index % len(COLORS)]


def marker_of(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def dots(points: Sequence) -> str | None:
    """A marker for a line of one point, which would be invisible without."""
    return "." if len(points) == 1 else None
