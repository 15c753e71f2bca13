"""The weights that git keeps: those of the reference run, and nothing else."""

import configparser
import hashlib
import subprocess
from pathlib import Path

from ruamel.yaml import YAML

from tests.small import ROOT

REFERENCE = ROOT / "results/reference"


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def test_git_keeps_the_weights_that_dvc_lock_names_where_the_reference_run_was_committed_and_no_more() -> None:
    """Above all no corpus: its licence does not allow it."""
    files = [path for path in REFERENCE.rglob("*") if path.is_file()]
    for path in files:
        assert path.relative_to(REFERENCE).parts[:2] == ("files", "md5")
        assert path.parent.name + path.name == hashlib.md5(path.read_bytes()).hexdigest()
    named = set()
    if commit := git("log", "-1", "--format=%H", "--", "results/reference"):
        lock = YAML(typ="safe", pure=True).load(git("show", f"{commit}:dvc.lock"))
        outs = [out for stage in lock["stages"].values() for out in stage["outs"]]
        named = {out["md5"] for out in outs if Path(out["path"]).name == "model.safetensors"}
    assert {path.parent.name + path.name for path in files} == named


def test_what_a_person_pushes_does_not_get_there() -> None:
    """DVC pushes into a remote that it was told, or that is the default."""
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc/config")
    assert "remote" not in config["core"]
    assert not any("remote:" in line for line in (ROOT / "dvc.yaml").read_text().splitlines())
