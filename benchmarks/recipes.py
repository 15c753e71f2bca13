"""Draw docs/recipes/recipes.svg: what params.yaml has come to, the recipes' kept runs, and published results.

A run is kept as docs/recipes/<recipe>-<model>.csv and .json: its history.csv and metrics.json.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline import figures
from pipeline.files import MODELS
from pipeline.history import read_history
from pipeline.lm.record import EpochRecord
from pipeline.params import load_params

RUNS = Path("docs/recipes")
MAIN_MODEL = "lstm_dropout"  # the one of params.yaml to draw

# Test perplexity, static, 2 layers of 200 units; docs/recipes.md has the sources.
PUBLISHED = {
    "Zaremba et al. 2014": 114.5,
    "published table": 106.74,
    "Inan et al. 2017": 82.7,
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    folder = MODELS / MAIN_MODEL
    runs = {label(load_params().recipe, MAIN_MODEL): read_run(folder / "history.csv", folder / "metrics.json")}
    for path in sorted(RUNS.glob("*.json")):
        runs[label(*path.stem.split("-"))] = read_run(path.with_suffix(".csv"), path)
    figures.recipes(runs, PUBLISHED, RUNS / "recipes.svg")
    print(f"{RUNS / 'recipes.svg'}: {'; '.join(runs)}")


def label(recipe: str, model: str) -> str:
    return f"{recipe}, {model.replace('_', ' ')}"


def read_run(history: Path, metrics: Path) -> tuple[list[EpochRecord], float]:
    """Every epoch, and the test perplexity of the best."""
    return read_history(history), json.loads(metrics.read_text())["test_perplexity"]


if __name__ == "__main__":
    main()
