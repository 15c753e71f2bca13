"""Folders in which stages run on the sample corpus."""

import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.demo import build_workspace, workspace_environment
from tests.small import recipe_text


def workspace(path: Path, epochs: int) -> Path:
    """A folder with a preprocessed sample corpus and the demo's models."""
    build_workspace(path, recipe_text("demo"))
    yaml = YAML(typ="safe", pure=True)
    params = yaml.load((path / "params.yaml").read_text())
    params["train"]["epochs"] = epochs
    with (path / "params.yaml").open("w") as file:
        yaml.dump(params, file)
    for stage in ("download", "preprocess"):
        subprocess.run([sys.executable, "-m", f"pipeline.{stage}"], cwd=path, env=workspace_environment(), check=True)
    return path
