"""The results of a sweep: a table, the importance of each setting, a picture, and the best trial as a recipe."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts.trials import EndedTrial, KeptStudy, study_path, write_study
from pipeline.project.console import counted, say
from pipeline.project.files import PARAMS, RECIPES, SWEEPS, atomic_write, project_root
from pipeline.reporting.parallel_coordinates import parallel_coordinates
from pipeline.reporting.seed_points import seed_points
from pipeline.reporting.spread import grouped
from pipeline.settings.params import parse_params, parse_yaml
from pipeline.settings.recipes import differences, in_layout, lay_over, round_trip
from pipeline.sweeps.ended import importance
from pipeline.sweeps.groups import difference_rows, spread_rows
from pipeline.sweeps.space import Range, searched
from pipeline.sweeps.sweep_file import Sweep
from pipeline.sweeps.words import short

MOST_SHOWN = 20


def write_files(sweep: Sweep, study: KeptStudy) -> list[Path]:
    """Write all files of a sweep to results/sweeps/NAME; returns them. The same trials give the same bytes."""
    folder, trials = SWEEPS / sweep.name, _best_first(study.ended)
    write_study(study_path(sweep.name), study)
    files = [study_path(sweep.name)]
    if not trials:
        return files
    files += [folder / "trials.csv", folder / "importance.csv", folder / "parallel_coordinates.svg"]
    shares = importance(sweep, study.ended)
    _write_table(files[1], [_row(sweep, trial) for trial in trials])
    _write_table(files[2], [{"setting": name, "importance": share} for name, share in shares.items()])
    _draw(sweep, trials, files[3])
    if sweep.over_seeds and (groups := grouped(study.ended)):
        files += [folder / "groups.csv", folder / "groups.svg"]
        _write_table(files[-2], spread_rows(groups))
        seed_points(groups, files[-1])
        if rows := difference_rows(groups):
            files.append(folder / "differences.csv")
            _write_table(files[-1], rows)
    if trials[0].state == "complete":
        files.append(_write_recipe(sweep, trials[0], len(trials)))
    return files


def show(sweep: Sweep, study: KeptStudy) -> None:
    """Print a summary of a sweep, after its files have been written."""
    if not study.ended:
        say(f"{sweep.name}: nothing to report yet: no trial has ended")
        return
    folder, trials = SWEEPS / sweep.name, _best_first(study.ended)
    say("\n" + "\n".join(_aligned([_row(sweep, trial) for trial in trials[:MOST_SHOWN]])))
    if len(trials) > MOST_SHOWN:
        say(f"... and {len(trials) - MOST_SHOWN} more in {folder / 'trials.csv'}")
    shares = ", ".join(f"{name} {share:.0%}" for name, share in importance(sweep, study.ended).items())
    say(f"\nimportance: {shares or 'too few complete trials to say'}")
    if sweep.over_seeds and (groups := grouped(study.ended)):
        for rows in (spread_rows(groups), difference_rows(groups)):
            if rows:
                say("\n" + "\n".join(_aligned(rows[:MOST_SHOWN])))
        say("")
    best = trials[0]
    if best.state == "complete":
        recipe = _recipe_path(sweep)
        say(f"best: trial {best.number}, validation perplexity {best.valid_perplexity:.2f}, as a recipe: {recipe}")
    say(f"tables, importance and pictures: {folder}")
    if best.state == "complete":
        say(f"next: {_next(recipe)}")


def _best_first(trials: Sequence[EndedTrial]) -> list[EndedTrial]:
    return sorted(trials, key=lambda trial: (trial.state != "complete", trial.valid_perplexity))


def summary(sweep: Sweep, trials: Sequence[EndedTrial]) -> str:
    """`3 of 36 trials have ended, the best with 98.71 (trial 2)`."""
    complete = [trial for trial in trials if trial.state == "complete"]
    best = min(complete, key=lambda trial: trial.valid_perplexity, default=None)
    tail = f", the best with {best.valid_perplexity:.2f} (trial {best.number})" if best else ""
    return f"{len(trials)} of {sweep.trials} trials have ended{tail}"


def _row(sweep: Sweep, trial: EndedTrial) -> dict[str, Any]:
    result = {
        "trial": trial.number,
        "state": trial.state,
        "epochs": len(trial.history),
        "valid_perplexity": trial.valid_perplexity if trial.history else None,
        "seconds": sum(record.seconds for record in trial.history),
    }
    if sweep.evaluate:
        result["test_perplexity"] = trial.test_perplexity
    tried = sweep.tried(trial.pick).items()
    return result | {f"settings.{name}" if name in result else name: value for name, value in tried}


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, rows[0] if rows else ["setting", "importance"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _aligned(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows below a header, each column as wide as necessary."""
    lines = [list(rows[0]), *([short(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines]


def _draw(sweep: Sweep, trials: Sequence[EndedTrial], path: Path) -> None:
    places = searched(sweep.space)
    tried = [sweep.tried(trial.pick) for trial in trials]
    parallel_coordinates(
        {name: [values[name] for values in tried] for name in places},
        {name: node.log for name, node in places.items() if isinstance(node, Range)},
        [trial.valid_perplexity for trial in trials],
        [trial.state == "complete" for trial in trials],
        path,
    )


def _as_in_the_root(path: Path) -> str:
    """The path from the project's root, however it was given; the name alone of what is elsewhere."""
    path, root = path.resolve(), project_root()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


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
    path = _recipe_path(sweep)
    with atomic_write(path) as file:
        file.write(
            f"# The best of {trials} trials of {_as_in_the_root(sweep.path)}: trial {trial.number}, validation"
            f" perplexity {trial.valid_perplexity:.2f} after {counted(len(trial.history), 'epoch')}.\n\n"
        )
        round_trip().dump(in_layout(document), file)
    lay_over(sweep.recipe_base, path)
    return path


def _recipe_path(sweep: Sweep) -> Path:
    return SWEEPS / sweep.name / f"{sweep.name}.yaml"


def _next(recipe: Path) -> str:
    """The commands that run a recipe in this folder: the demo's has neither a Makefile nor recipes of its own."""
    make = f"make repro RECIPE={recipe.stem}"
    if not Path("Makefile").exists():
        make = f"python -m pipeline.recipe {recipe.stem} && dvc repro"
    return f"{'' if RECIPES.is_dir() else f'mkdir {RECIPES} && '}cp {recipe} {RECIPES}/ && {make}"
