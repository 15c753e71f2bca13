"""Folders in which stages run on the sample corpus."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.artifacts.checkpoint import exclusive
from pipeline.demo import build_workspace, workspace_environment
from pipeline.project.console import say
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
def held_until_awaited(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another holder has a checkpoint at first, and releases it as soon as the message about waiting is printed."""
    held, awaited = threading.Event(), threading.Event()

    def hold() -> None:
        with exclusive(checkpoint):
            held.set()
            awaited.wait()

    def say_and_release(message: str) -> None:
        say(message)
        awaited.set()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    try:
        with monkeypatch.context() as patched:
            patched.setattr("pipeline.artifacts.checkpoint.say", say_and_release)
            yield
    finally:
        awaited.set()
        holder.join()
