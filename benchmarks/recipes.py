"""Draw docs/recipes/recipes.svg: a run of each recipe beside published results.

A run is kept as docs/recipes/<recipe>-<model>.csv and .json: its history.csv and metrics.json. `default` is what
params.yaml comes with.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline import figures
from pipeline.history import read_history

RUNS = Path("docs/recipes")
DRAWN = (
    "zaremba-lstm",
    "zaremba-lstm_dropout",
    "default-lstm_dropout",
    "fast-lstm_dropout",
    "best-gru_dropout",
    "best-lstm_dropout",
)

# Test perplexity, static, 2 layers of 200 units; docs/recipes.md has the sources.
PUBLISHED = {
    "Zaremba et al. 2014": 114.5,
    "published table": 106.74,
    "Inan et al. 2017": 82.7,
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    runs = {}
    for name in DRAWN:
        test = json.loads((RUNS / f"{name}.json").read_text())["test_perplexity"]
        runs[name.replace("-", ", ").replace("_", " ")] = read_history(RUNS / f"{name}.csv"), test
    figures.recipes(runs, PUBLISHED, RUNS / "recipes.svg")
    print(f"{RUNS / 'recipes.svg'}: {'; '.join(runs)}")


if __name__ == "__main__":
    main()
