"""The results of a sweep: tables, pictures, and the best trial as a recipe."""

import csv
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifacts.trials import EndedTrial, KeptStudy, study_path, write_study
from pipeline.project.console import counted, say
from pipeline.project.files import PARAMS, RECIPES, SWEEPS, atomic_write, project_root
from pipeline.reporting.parallel_coordinates import parallel_coordinates
from pipeline.reporting.seed_points import seed_points
from pipeline.settings.params import parse_params, parse_yaml
from pipeline.settings.recipes import apply_recipe, differences, in_layout, round_trip
from pipeline.sweeps import tables
from pipeline.sweeps.space import Range, searched
from pipeline.sweeps.sweep import Sweep, short

MOST_SHOWN = 20


def write_files(sweep: Sweep, study: KeptStudy) -> list[Path]:
    """Write all files of a sweep to results/sweeps/NAME; returns them. The same trials give the same bytes."""
    folder, trials = SWEEPS / sweep.name, tables.best_first(study.ended)
    write_study(study_path(sweep.name), study)
    files = [study_path(sweep.name)]
    if not trials:
        return files
    shares = tables.importance(sweep, study.ended).items()
    files += [
        _write_table(folder / "trials.csv", [tables.trial_row(sweep, trial) for trial in trials]),
        _write_table(folder / "importance.csv", [{"setting": name, "importance": share} for name, share in shares]),
        _draw(sweep, trials, folder / "parallel_coordinates.svg"),
    ]
    if groups := tables.groups_of(sweep, study.ended):
        files += [_write_table(folder / "groups.csv", tables.spread_rows(groups)), folder / "groups.svg"]
        seed_points(groups, files[-1])
        if rows := tables.difference_rows(groups):
            files.append(_write_table(folder / "differences.csv", rows))
    if best := tables.best_of(trials):
        files.append(_write_recipe(sweep, best, len(trials)))
    return files


def print_summary(sweep: Sweep, study: KeptStudy) -> None:
    """Print a summary of a sweep, after its files have been written."""
    if not study.ended:
        say(f"{sweep.name}: nothing to report yet: no trial has ended")
        return
    folder, trials, best = SWEEPS / sweep.name, tables.best_first(study.ended), tables.best_of(study.ended)
    _print_table([tables.trial_row(sweep, trial) for trial in trials[:MOST_SHOWN]])
    if len(trials) > MOST_SHOWN:
        say(f"... and {len(trials) - MOST_SHOWN} more in {folder / 'trials.csv'}")
    shares = ", ".join(f"{name} {share:.0%}" for name, share in tables.importance(sweep, study.ended).items())
    say(f"\nimportance: {shares or 'too few complete trials to say'}")
    if groups := tables.groups_of(sweep, study.ended):
        _print_table(tables.spread_rows(groups))
        _print_table(tables.difference_rows(groups))
        say("")
    recipe = _recipe_path(sweep)
    if best:
        say(f"best: trial {best.number}, validation perplexity {best.valid_perplexity:.2f}, as a recipe: {recipe}")
    say(f"tables, importance and pictures: {folder}")
    if best:
        say(f"next: {_next_command(recipe)}")


def summary(sweep: Sweep, trials: Sequence[EndedTrial]) -> str:
    """`3 of 36 trials have ended, the best with 98.71 (trial 2)`."""
    best = tables.best_of(trials)
    tail = f", the best with {best.valid_perplexity:.2f} (trial {best.number})" if best else ""
    return f"{len(trials)} of {sweep.trials} trials have ended{tail}"


def _write_table(path: Path, rows: Sequence[tables.Row]) -> Path:
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, rows[0] if rows else ["setting", "importance"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _print_table(rows: Sequence[tables.Row]) -> None:
    """Print a header and the first rows, if there are any, with columns aligned."""
    if not rows:
        return
    lines = [list(rows[0]), *([short(value) for value in row.values()] for row in rows[:MOST_SHOWN])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines]
    say("\n" + "\n".join(aligned))


def _draw(sweep: Sweep, trials: Sequence[EndedTrial], path: Path) -> Path:
    places = searched(sweep.space)
    tried = [sweep.tried(trial.picked) for trial in trials]
    parallel_coordinates(
        {name: [values[name] for values in tried] for name in places},
        {name: node.log for name, node in places.items() if isinstance(node, Range)},
        [trial.valid_perplexity for trial in trials],
        [trial.state == "complete" for trial in trials],
        path,
    )
    return path


def _relative_to_root(path: Path) -> str:
    """The path relative to the project's root; outside of it, only the file's name."""
    path, root = path.resolve(), project_root()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _write_recipe(sweep: Sweep, trial: EndedTrial, trials: int) -> Path:
    """Write the best trial as a recipe with one model: everything that differs from the recipes' base."""
    settings = sweep.settings(trial.picked)
    base = parse_yaml(sweep.source.recipe_base, PARAMS)
    shared = parse_params(base).train.model_dump()
    wanted = {section: sweep.source.params[section] for section in ("processes", "download", "preprocess", "report")}
    document = differences(base, wanted) | {
        "train": differences(shared, settings.model_dump()),
        "models": {"best": {"cell": settings.cell}},
    }
    path = _recipe_path(sweep)
    with atomic_write(path) as file:
        file.write(
            f"# The best of {trials} trials of {_relative_to_root(sweep.path)}: trial {trial.number}, validation"
            f" perplexity {trial.valid_perplexity:.2f} after {counted(len(trial.history), 'epoch')}.\n\n"
        )
        round_trip().dump(in_layout(document), file)
    apply_recipe(sweep.source.recipe_base, path)
    return path


def _recipe_path(sweep: Sweep) -> Path:
    return SWEEPS / sweep.name / f"{sweep.name}.yaml"


def _next_command(recipe: Path) -> str:
    """The commands that run a recipe in this folder: the demo's has neither a Makefile nor a folder of recipes."""
    make = f"make repro RECIPE={recipe.stem}"
    if not Path("Makefile").exists():
        make = f"python -m pipeline.recipe {recipe.stem} && dvc repro"
    return f"{'' if RECIPES.is_dir() else f'mkdir {RECIPES} && '}cp {recipe} {RECIPES}/ && {make}"
