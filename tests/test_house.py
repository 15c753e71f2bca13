"""The house stands: imports run one way, no file is long, and DVC watches the code that decides a stage's numbers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.evaluate import CODE_OF_EVALUATION
from tests.small import ROOT

STAGES = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]

# Each room may import from those before it; the commands at the top of pipeline/, from all of them.
ROOMS = ["lm", "project", "settings", "corpus", "artifacts", "inference", "reporting", "tracking", "sweeps"]
NEIGHBOURS = {("inference", "reporting"), ("tracking", "sweeps")}  # which know nothing of each other
MOST_LINES = 250
MOST_LINES_OF_A_FUNCTION = 45

MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "pipeline").rglob("*.py"))


def imported(module: str) -> set[str]:
    """The project's modules that a module imports itself, as paths."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pipeline"):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found |= {path for name in names if (ROOT / (path := f"{name.replace('.', '/')}.py")).exists()}
    return found


def room(module: str) -> str | None:
    """None for a command."""
    parts = Path(module).parts
    return parts[1] if len(parts) > 2 else None


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    here = room(module)
    for other in imported(module):
        there = room(other)
        assert there in ROOMS, f"{other} is a command, which nobody imports"
        if here is not None:
            assert ROOMS.index(there) <= ROOMS.index(here), other
            assert (there, here) not in NEIGHBOURS, other


def test_no_import_within_a_room_runs_in_a_circle() -> None:
    remaining = {module: imported(module) for module in MODULES}
    while free := [module for module, others in remaining.items() if not others & remaining.keys()]:
        for module in free:
            del remaining[module]
    assert not remaining


@pytest.mark.parametrize("module", MODULES)
def test_a_file_is_read_at_a_sitting(module: str) -> None:
    assert len((ROOT / module).read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("module", MODULES)
def test_a_function_is_seen_at_once(module: str) -> None:
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.FunctionDef) and node.end_lineno:
            assert node.end_lineno - node.lineno < MOST_LINES_OF_A_FUNCTION, node.name


WATCHED_BESIDE = {module for module in imported("pipeline/evaluate.py") if room(module) == "inference"}


def test_dvc_watches_what_decides_a_number_and_nothing_else() -> None:
    code = {
        stage: {dep for dep in definition.get("do", definition)["deps"] if dep.startswith("pipeline")}
        for stage, definition in STAGES.items()
    }
    assert code["train"] == {"pipeline/lm"}
    assert code["evaluate"] == {"pipeline/lm", *WATCHED_BESIDE}


def test_what_evaluation_runs_beside_the_language_model_is_watched_with_all_that_it_imports() -> None:
    assert {path.as_posix() for path in CODE_OF_EVALUATION} == WATCHED_BESIDE
    for module in WATCHED_BESIDE:
        assert {room(other) for other in imported(module)} == {"lm"}


def test_the_language_model_says_nothing() -> None:
    """Messages are in other rooms, for a changed word in this one would make every model train again."""
    for module in (ROOT / "pipeline/lm").glob("*.py"):
        tree = ast.parse(module.read_text())
        texts = {node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        described = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        assert [text.value for text in texts - described if " " in text.value] == [], module


def test_the_settings_and_the_records_do_without_torch() -> None:
    program = "import sys, pipeline.settings.params, pipeline.restore; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
