"""Draw docs/recipes/recipes.svg: runs of the recipes next to results of others.

A run is kept as docs/recipes/<recipe>-<model>.csv and .json: its history.csv and metrics.json; its settings are in
settings.json. `default` is params.yaml as committed.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.artifacts.history import best_epoch, read_history
from pipeline.reporting.style import BEST, MUTED, WIDTH, History, color_of, drawn, marker_of, points, round_numbers

RUNS = Path("docs/recipes")
DRAWN = (
    "zaremba-lstm",
    "zaremba-lstm_dropout",
    "default-lstm_dropout",
    "fast-lstm_dropout",
    "best-gru_dropout",
    "best-lstm_dropout",
)

# Test perplexity, static, 2 layers of 200 units; the sources are in params.yaml and docs/experiments/published.csv.
OTHERS = {
    "Zaremba et al. 2014": 114.5,
    "course report": 106.74,
    "Inan et al. 2017": 82.7,
}


def draw(runs: Mapping[str, tuple[History, float]], published: Mapping[str, float], path: Path) -> None:
    """Draw each run's validation perplexity by epoch and its test perplexity at the best epoch, next to published ones.

    runs: history and test perplexity by label; published: test perplexity by label
    """
    with drawn(path, width=WIDTH, height=4.8) as figure:
        axes = figure.subplots()
        histories = [history for history, _ in runs.values()]
        low = min([test for _, test in runs.values()] + list(published.values()))
        for index, (label, (history, test)) in enumerate(runs.items()):
            best, color = best_epoch(history), color_of(index)
            axes.plot(*points(history, "valid_perplexity"), color=color, linewidth=1.2)
            axes.plot([best.epoch] * 2, [best.valid_perplexity, test], color=color, linewidth=0.8, linestyle=":")
            axes.plot(best.epoch, test, marker_of(index), color=color, label=f"{label}: {test:.1f}", **BEST)
        for label, test in published.items():
            axes.axhline(test, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0.9)
            at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
            axes.annotate(f"{test:g}  {label}", (1, test), (4, 0), va="center", **at)
        axes.set_yscale("log")
        axes.set_ylim(low / 1.05, 3 * low)
        axes.yaxis.set_major_locator(FixedLocator(round_numbers(*axes.get_ylim())))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_xscale("log")
        axes.set_xlim(1, 1.05 * max(map(len, histories)))
        axes.xaxis.set_major_locator(FixedLocator(round_numbers(*axes.get_xlim())))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_xlabel("epoch")
        axes.set_ylabel("perplexity: lines valid, marks test")
        axes.legend(loc="upper right", title="test perplexity", alignment="left")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    runs = {}
    settings = json.loads((RUNS / "settings.json").read_text())
    for name in DRAWN:
        test = json.loads((RUNS / f"{name}.json").read_text())["test_perplexity"]
        taught = ", taught" if settings[name].get("distillation") else ""
        runs[name.replace("-", ", ").replace("_", " ") + taught] = read_history(RUNS / f"{name}.csv"), test
    draw(runs, OTHERS, RUNS / "recipes.svg")
    print(f"{RUNS / 'recipes.svg'}: {'; '.join(runs)}")


if __name__ == "__main__":
    main()
