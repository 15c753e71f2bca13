"""What has come out of a sweep: a table, the settings' importance, a picture, and the best trial as a params file."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from pipeline.project.console import say
from pipeline.project.files import RECIPES, SWEEPS, atomic_write
from pipeline.project.params import load_params, read_yaml
from pipeline.project.schema import Params
from pipeline.reporting.parallel_coordinates import parallel_coordinates
from pipeline.search.space import Range, searched
from pipeline.search.sweep_file import Sweep
from pipeline.search.trial import EndedTrial

MOST_SHOWN = 20
NULL = "tag:yaml.org,2002:null"


def write_report(sweep: Sweep, trials: Sequence[EndedTrial], importance: Mapping[str, float]) -> list[Path]:
    """Write all files of a sweep to results/sweeps/NAME and show the gist of them; returns the files."""
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
        say(f"best: trial {best.number}, valid perplexity {best.valid_perplexity:.2f}, as a params file: {files[-1]}")
    say(f"table, importance and picture: {folder}")
    if best.state == "complete":
        say(f"next: cp {files[-1]} {RECIPES}/ && make repro RECIPE={sweep.name}")
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
    """The rows under their names, each column as wide as it has to be."""
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
    """The sweep's params file with the best settings and one model that has them."""
    settings = sweep.settings(trial.pick)
    document = read_yaml(sweep.params) | {
        "recipe": sweep.name,
        "train": settings.model_dump(),
        "models": {"best": {"cell": settings.cell}},
    }
    path = SWEEPS / sweep.name / f"{sweep.name}.yaml"
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), lambda dumper, _: dumper.represent_scalar(NULL, "null"))
    with atomic_write(path) as file:
        file.write(
            f"# The best of {trials} trials of {sweep.path.as_posix()}: trial {trial.number}, valid perplexity"
            f" {trial.valid_perplexity:.2f} after {len(trial.history)} epochs.\n\n"
        )
        yaml.dump(_laid_out({section: document[section] for section in Params.model_fields}), file)
    load_params(path)
    return path


def _laid_out(value: Any, depth: int = 0) -> Any:
    """A document for YAML, small groups of values on one line as in the recipes."""
    if not isinstance(value, dict):
        return value
    group = CommentedMap((key, _laid_out(inner, depth + 1)) for key, inner in value.items())
    if depth > 1 and not any(isinstance(inner, dict | list) for inner in value.values()):
        group.fa.set_flow_style()
    return group
