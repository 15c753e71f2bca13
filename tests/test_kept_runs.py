"""The runs kept in docs/recipes are whole, and the pages give their figures."""

import json
from pathlib import Path

import pytest

from pipeline.artifacts.history import best_epoch, read_history
from pipeline.lm.record import EpochRecord
from pipeline.project.params import load_params
from pipeline.report import clock
from tests.small import ROOT

RUNS = sorted((ROOT / "docs/recipes").glob("*.json"))


def read(run: Path) -> tuple[list[EpochRecord], dict[str, float]]:
    """Every epoch of a kept run, and its metrics."""
    return read_history(run.with_suffix(".csv")), json.loads(run.read_text())


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.stem)
def test_a_kept_run_is_whole_and_the_page_of_recipes_has_it(run: Path) -> None:
    recipe, _, model = run.stem.partition("-")
    history, metrics = read(run)
    assert best_epoch(history).epoch == metrics["best_epoch"]
    assert best_epoch(history).valid_perplexity == pytest.approx(metrics["valid_perplexity"], rel=1e-4)
    if recipe != "default":  # that one is params.yaml, which people edit
        assert len(history) == load_params(ROOT / f"recipes/{recipe}.yaml").model(model).epochs
    row = f"| `{recipe}` | `{model}` | {metrics['valid_perplexity']:.2f} | **{metrics['test_perplexity']:.2f}** |"
    assert row in (ROOT / "docs/recipes.md").read_text()


@pytest.mark.parametrize("run", [run for run in RUNS if run.stem.startswith("default-")], ids=lambda run: run.stem)
def test_the_readme_has_the_figures_of_the_reference_run(run: Path) -> None:
    history, metrics = read(run)
    ours = [f"{metrics[f'{split}_perplexity']:.2f}" for split in ("train", "valid")]
    ours.append(f"**{metrics['test_perplexity']:.2f}**")
    row = f"| {' | '.join(ours)} | "
    facts = f" | {metrics['best_epoch']} of {len(history)} | {metrics['parameters']:,} | "
    facts += f"{clock(sum(record.seconds for record in history))} |"
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if row in line]
    assert len(lines) == 1
    assert lines[0].endswith(facts)
