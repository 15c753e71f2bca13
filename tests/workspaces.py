"""Folders in which stages run on the sample corpus, and what else may go on in them."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.artifacts.checkpoint import exclusive
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


@contextmanager
def held_for_a_while(checkpoint: Path) -> Iterator[None]:
    """Someone else has a checkpoint when the block begins, and lets go of it a second later."""
    held = threading.Event()

    def hold() -> None:
        with exclusive(checkpoint):
            held.set()
            time.sleep(1)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    try:
        yield
    finally:
        holder.join()
