"""The runs kept in docs/recipes are whole, and the pages give their figures."""

import csv
import json
from pathlib import Path

import pytest

from pipeline.artifacts.history import best_epoch, read_history
from pipeline.lm.record import EpochRecord
from pipeline.lm.settings import Settings
from pipeline.reporting.results import duration
from pipeline.settings.params import parse_params, parse_yaml
from pipeline.settings.recipes import apply_recipe, read_base
from tests.small import KEPT_SETTINGS, ROOT, recipe_params

RUNS = sorted((ROOT / "docs/recipes").glob("*-*.json"))
RECIPES = sorted({run.stem.partition("-")[0] for run in RUNS} - {"default"})


def read(run: Path) -> tuple[list[EpochRecord], dict[str, float]]:
    """Every epoch of a kept run, and its metrics."""
    return read_history(run.with_suffix(".csv")), json.loads(run.read_text())


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.stem)
def test_a_kept_run_is_whole_and_the_page_of_recipes_has_it(run: Path) -> None:
    recipe, _, model = run.stem.partition("-")
    history, metrics = read(run)
    assert best_epoch(history).epoch == metrics["best_epoch"]
    assert best_epoch(history).valid_perplexity == pytest.approx(metrics["valid_perplexity"], rel=1e-4)
    assert len(history) == KEPT_SETTINGS[run.stem]["epochs"]
    row = f"| `{recipe}` | `{model}` | {metrics['valid_perplexity']:.2f} | **{metrics['test_perplexity']:.2f}** |"
    assert row in (ROOT / "docs/recipes.md").read_text()


def kept(recipe: str) -> dict[str, Settings]:
    """The settings with which a recipe's kept runs were trained; one that is newer than a run has its default."""
    return {
        run.removeprefix(f"{recipe}-"): Settings.model_validate(settings)
        for run, settings in KEPT_SETTINGS.items()
        if run.startswith(f"{recipe}-")
    }


def test_every_kept_run_has_its_settings_and_nothing_else_has() -> None:
    assert set(KEPT_SETTINGS) == {run.stem for run in RUNS}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_gives_the_settings_of_its_kept_runs(recipe: str) -> None:
    """Over the settings of the kept default runs, whatever params.yaml has become."""
    assert recipe_params(recipe).models == kept(recipe)


def test_the_teachers_of_the_gru_are_those_of_the_lstm_so_that_each_is_trained_once() -> None:
    lstm, gru = (recipe_params("best").models[f"{cell}_dropout"].teachers for cell in ("lstm", "gru"))
    assert len(gru) == len(lstm) == 2
    assert all(teacher in lstm for teacher in gru)


@pytest.mark.parametrize("recipe", ["default", *RECIPES])
def test_the_same_over_params_yaml_as_long_as_it_is_that_of_the_kept_runs(recipe: str) -> None:
    base = read_base(ROOT)
    params = parse_params(parse_yaml(base, Path("params.yaml")))
    if params.train != kept("default")["lstm"] or params.models != kept("default"):
        pytest.skip("params.yaml has been changed since the runs were kept")
    if recipe != "default":
        file = ROOT / f"recipes/{recipe}.yaml"
        params = parse_params(parse_yaml(apply_recipe(base, file), file))
    assert params.models == kept(recipe)


@pytest.mark.parametrize("run", [run for run in RUNS if run.stem.startswith("default-")], ids=lambda run: run.stem)
def test_the_readme_has_the_figures_of_the_reference_run(run: Path) -> None:
    history, metrics = read(run)
    ours = [f"{metrics[f'{split}_perplexity']:.2f}" for split in ("train", "valid")]
    ours.append(f"**{metrics['test_perplexity']:.2f}**")
    row = f"| {' | '.join(ours)} | "
    facts = f" | {metrics['best_epoch']} of {len(history)} | {metrics['parameters']:,} | "
    facts += f"{duration(sum(record.seconds for record in history))} |"
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if row in line]
    assert len(lines) == 1
    assert lines[0].endswith(facts)


def study_of_seeds(table: str) -> list[dict[str, str]]:
    with (ROOT / f"results/sweeps/seeds/{table}.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_page_of_sweeps_has_the_figures_of_the_study_of_seeds() -> None:
    page = (ROOT / "docs/sweeps.md").read_text()
    spread = {
        (row["group"], row["split"]): f"{float(row['mean']):.2f} ± {float(row['standard_deviation']):.2f}"
        for row in study_of_seeds("groups")
    }
    models = {"LSTM, dropout 0.2": "lstm_dropout", "GRU, dropout 0.2": "gru_dropout", "LSTM": "lstm", "GRU": "gru"}
    for words, model in models.items():
        assert f"| {words} | {spread[model, 'valid']} | {spread[model, 'test']} |" in page
    found = {(row["group"], row["other"]): row for row in study_of_seeds("differences") if row["split"] == "test"}
    pairs = {
        ("lstm_dropout", "gru_dropout"): "LSTM below GRU, with dropout",
        ("lstm", "gru"): "LSTM below GRU, without",
        ("lstm_dropout", "lstm"): "dropout below none, LSTM",
        ("gru_dropout", "gru"): "dropout below none, GRU",
    }
    for pair, words in pairs.items():
        by, low, high = (float(found[pair][name]) for name in ("difference", "low_95", "high_95"))
        assert f"| {words} | {by:.2f} | {low:.2f} to {high:.2f} |" in page
