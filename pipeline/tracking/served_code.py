"""The modules that a registered model carries with it: those that it imports, and no others."""

import ast
import shutil
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def copy_needed_code(module: Path, destination: Path) -> None:
    """Copy the package `pipeline` to a folder, cut down to what a module of it imports, directly or through others."""
    for path in _needed(module):
        copy = destination / path.relative_to(PROJECT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _needed(module: Path) -> set[Path]:
    needed: set[Path] = set()
    pending = [module]
    while pending:
        path = pending.pop()
        if path in needed:
            continue
        needed.add(path)
        pending += [package for folder in path.parents if (package := folder / "__init__.py").exists()]
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pipeline"):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                files = [PROJECT / f"{name.replace('.', '/')}.py" for name in names]
                pending += [file for file in files if file.exists()]
    return needed
