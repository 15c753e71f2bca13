"""The runs kept in docs/recipes are whole, and the page gives their figures."""

import json
from pathlib import Path

import pytest

from pipeline.history import best_epoch, read_history
from pipeline.params import load_params
from tests.small import ROOT

RUNS = sorted((ROOT / "docs/recipes").glob("*.json"))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.stem)
def test_a_kept_run_is_that_of_its_recipe(run: Path) -> None:
    recipe, _, model = run.stem.partition("-")
    settings = load_params(ROOT / f"recipes/{recipe}.yaml").model(model)
    history, metrics = read_history(run.with_suffix(".csv")), json.loads(run.read_text())
    assert len(history) == settings.epochs
    assert best_epoch(history).epoch == metrics["best_epoch"]
    assert best_epoch(history).valid_perplexity == pytest.approx(metrics["valid_perplexity"], rel=1e-4)
    row = f"| `{recipe}` | `{model}` | {metrics['valid_perplexity']:.2f} | **{metrics['test_perplexity']:.2f}** |"
    assert row in (ROOT / "docs/recipes.md").read_text()
