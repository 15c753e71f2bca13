"""dvc.yaml names, for each stage, every module that can change its result: no stale result, no needless training."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.checkpoint import training_code
from tests.small import ROOT

STAGES = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]

# These change what people see, and no result. The report is the exception: there the figures are the result.
VIEWS = {f"pipeline/{name}.py" for name in ("console", "figures", "registry", "tracking", "__init__")}


def imported(module: str) -> set[str]:
    """The project's modules that a module imports, directly or through others, as paths."""
    found: set[str] = set()
    pending = [module]
    while pending:
        path = pending.pop()
        if path in found or (path in VIEWS and path != "pipeline/figures.py"):
            continue
        found.add(path)
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pipeline"):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                files = [f"{name.replace('.', '/')}.py" for name in names]
                pending += [file for file in files if (ROOT / file).exists()]
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_that_can_change_its_result_and_on_no_other(stage: str) -> None:
    definition = STAGES[stage].get("do", STAGES[stage])
    listed = {dep for dep in definition["deps"] if dep.startswith("pipeline")}
    needed = imported(f"pipeline/{stage}.py")
    if stage != "report":
        needed -= VIEWS
    assert listed == needed


def test_the_fingerprint_is_of_the_language_models_code_that_a_training_runs() -> None:
    needed = {module for module in imported("pipeline/train.py") if module.startswith("pipeline/lm/")}
    assert {module.relative_to(ROOT).as_posix() for module in training_code()} == needed


def test_imports_run_one_way() -> None:
    """The language model knows nothing of the rest, and nobody imports a stage."""
    for path in (ROOT / "pipeline").rglob("*.py"):
        module = path.relative_to(ROOT).as_posix()
        others = imported(module) - {module}
        if module.startswith("pipeline/lm/"):
            assert all(other.startswith("pipeline/lm/") for other in others)
        assert not {Path(other).stem for other in others} & set(STAGES), module
