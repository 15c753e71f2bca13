"""The results of a sweep: a table, the importance of each setting, a picture, and the best trial as a recipe."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.project.console import counted, say
from pipeline.project.files import PARAMS, RECIPES, SWEEPS, atomic_write
from pipeline.project.params import parse_params, parse_yaml
from pipeline.project.recipes import differences, in_layout, lay_over, round_trip
from pipeline.reporting.parallel_coordinates import parallel_coordinates
from pipeline.search.space import Range, searched
from pipeline.search.sweep_file import Sweep
from pipeline.search.trial import EndedTrial

MOST_SHOWN = 20


def write_report(sweep: Sweep, trials: Sequence[EndedTrial], importance: Mapping[str, float]) -> list[Path]:
    """Write all files of a sweep to results/sweeps/NAME and print a summary; returns the files."""
    if not trials:
        say(f"{sweep.name}: nothing to report yet: no trial has ended")
        return []
    folder = SWEEPS / sweep.name
    best_first = sorted(trials, key=lambda trial: (trial.state != "complete", trial.valid_perplexity))
    rows = [_row(sweep, trial) for trial in best_first]
    files = [folder / "trials.csv", folder / "importance.csv", folder / "parallel_coordinates.svg"]
    _write_table(files[0], rows)
    _write_table(files[1], [{"setting": name, "importance": share} for name, share in importance.items()])
    _draw(sweep, best_first, files[2])

    say("\n" + "\n".join(_aligned(rows[:MOST_SHOWN])))
    if len(rows) > MOST_SHOWN:
        say(f"... and {len(rows) - MOST_SHOWN} more in {files[0]}")
    shares = ", ".join(f"{name} {share:.0%}" for name, share in importance.items())
    say(f"\nimportance: {shares or 'too few complete trials to say'}")
    best = best_first[0]
    if best.state == "complete":
        files.append(_write_recipe(sweep, best, len(trials)))
        say(f"best: trial {best.number}, valid perplexity {best.valid_perplexity:.2f}, as a recipe: {files[-1]}")
    say(f"table, importance and picture: {folder}")
    if best.state == "complete":
        say(f"next: {_next(files[-1])}")
    return files


def summary(sweep: Sweep, trials: Sequence[EndedTrial]) -> str:
    """`3 of 36 trials have ended, the best with 98.71 (trial 2)`."""
    complete = [trial for trial in trials if trial.state == "complete"]
    best = min(complete, key=lambda trial: trial.valid_perplexity, default=None)
    tail = f", the best with {best.valid_perplexity:.2f} (trial {best.number})" if best else ""
    return f"{len(trials)} of {sweep.trials} trials have ended{tail}"


def in_words(tried: Mapping[str, Any]) -> str:
    """`cell lstm, learning_rate 0.5`."""
    return ", ".join(f"{name} {_short(value)}" for name, value in tried.items() if value is not None)


def _row(sweep: Sweep, trial: EndedTrial) -> dict[str, Any]:
    result = {
        "trial": trial.number,
        "state": trial.state,
        "epochs": len(trial.history),
        "valid_perplexity": trial.valid_perplexity if trial.history else None,
        "seconds": sum(record.seconds for record in trial.history),
    }
    return result | sweep.tried(trial.pick)


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, rows[0] if rows else ["setting", "importance"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _aligned(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows below a header, each column as wide as necessary."""
    lines = [list(rows[0]), *([_short(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines]


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return f"{value}"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"


def _draw(sweep: Sweep, trials: Sequence[EndedTrial], path: Path) -> None:
    places = searched(sweep.space)
    tried = [sweep.tried(trial.pick) for trial in trials]
    parallel_coordinates(
        {name: [values[name] for values in tried] for name in places},
        {name for name, node in places.items() if isinstance(node, Range) and node.log},
        [trial.valid_perplexity for trial in trials],
        [trial.state == "complete" for trial in trials],
        path,
    )


def _write_recipe(sweep: Sweep, trial: EndedTrial, trials: int) -> Path:
    """A recipe with one model, which has the best settings: everything that differs from the recipes' base."""
    settings = sweep.settings(trial.pick)
    base = parse_yaml(sweep.recipe_base, PARAMS)
    shared = parse_params(base).train.model_dump()
    wanted = {section: sweep.params[section] for section in ("processes", "download", "preprocess", "report")}
    document = differences(base, wanted) | {
        "train": differences(shared, settings.model_dump()),
        "models": {"best": {"cell": settings.cell}},
    }
    path = SWEEPS / sweep.name / f"{sweep.name}.yaml"
    with atomic_write(path) as file:
        file.write(
            f"# The best of {trials} trials of {sweep.path.as_posix()}: trial {trial.number}, valid perplexity"
            f" {trial.valid_perplexity:.2f} after {counted(len(trial.history), 'epoch')}.\n\n"
        )
        round_trip().dump(in_layout(document), file)
    lay_over(sweep.recipe_base, path)
    return path


def _next(recipe: Path) -> str:
    """The commands that run a recipe in this folder: the demo's has neither a Makefile nor recipes of its own."""
    make = f"make repro RECIPE={recipe.stem}"
    if not Path("Makefile").exists():
        make = f"python -m pipeline.recipe {recipe.stem} && dvc repro"
    return f"{'' if RECIPES.is_dir() else f'mkdir {RECIPES} && '}cp {recipe} {RECIPES}/ && {make}"
