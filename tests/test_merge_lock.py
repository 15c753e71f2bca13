"""Merging dvc.lock: the laws of a three-way merge, and git's own conflicts resolved by the command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.merge_lock import merge
from pipeline.project.console import UserError
from tests.small import ROOT

STAGES = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2).map(lambda md5: {"md5": md5}))


@given(STAGES, STAGES)
def test_a_side_that_changed_nothing_gives_way_to_the_other(ancestor: dict, changed: dict) -> None:
    assert merge(ancestor, changed, ancestor) == merge(ancestor, ancestor, changed) == changed
    assert merge(ancestor, changed, changed) == changed


@given(STAGES, STAGES, STAGES)
def test_each_stage_is_that_of_the_side_that_changed_it_or_a_conflict(ancestor: dict, ours: dict, theirs: dict) -> None:
    if any(len({str(side.get(name)) for side in (ancestor, ours, theirs)}) == 3 for name in "abcd"):
        with pytest.raises(UserError, match="both sides changed"):
            merge(ancestor, ours, theirs)
        return
    merged = merge(ancestor, ours, theirs)
    assert merged == merge(ancestor, theirs, ours)
    for name in "abcd":
        sides = [side.get(name) for side in (ancestor, ours, theirs)]
        assert merged.get(name) == (sides[1] if sides[2] == sides[0] else sides[2])


class Conflict:
    """A git repository in which two branches added different stages to dvc.lock, merged as far as git gets."""

    def __init__(self, path: Path, ours: dict, theirs: dict) -> None:
        self.path = path
        self.git("init", "-q", "-b", "main")
        self.commit({"preprocess": {"md5": "0"}})
        self.git("checkout", "-qb", "theirs")
        self.commit(theirs)
        self.git("checkout", "-q", "main")
        self.commit(ours)
        self.git("merge", "theirs", check=False)

    def git(self, *arguments: str, check: bool = True) -> str:
        person = ["-c", "user.name=Tester", "-c", "user.email=tester@example.com"]
        command = ["git", *person, *arguments]
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, check=check).stdout

    def commit(self, stages: dict) -> None:
        with (self.path / "dvc.lock").open("w") as file:
            YAML().dump({"schema": "2.0", "stages": stages}, file)
        self.git("add", "-A")
        self.git("commit", "-qm", "stages")


def resolve(repository: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline.merge_lock"]
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)


def test_two_machines_that_trained_different_models_keep_the_stages_of_both(tmp_path: Path) -> None:
    old = {"preprocess": {"md5": "0"}}
    conflict = Conflict(tmp_path, old | {"train@gru": {"md5": "1"}}, old | {"train@lstm": {"md5": "2"}})
    assert "UU dvc.lock" in conflict.git("status", "--porcelain")
    assert resolve(tmp_path).stdout.startswith("dvc.lock has the stages of both sides: `git commit`")
    assert conflict.git("status", "--porcelain") == "M  dvc.lock\n"
    assert YAML(typ="safe").load(tmp_path / "dvc.lock") == {
        "schema": "2.0",
        "stages": old | {"train@gru": {"md5": "1"}, "train@lstm": {"md5": "2"}},
    }


def test_what_git_refuses_is_one_clear_line_below_its_own(tmp_path: Path) -> None:
    Conflict(tmp_path, {"train@gru": {"md5": "1"}}, {"train@lstm": {"md5": "2"}})
    (tmp_path / ".git/index.lock").touch()  # as an editor's git has it for a moment
    result = resolve(tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith("but `git add` failed, see above: fix that, then `git add dvc.lock`")
    assert "Traceback" not in result.stderr


def test_a_stage_run_to_two_ends_is_left_to_the_user(tmp_path: Path) -> None:
    Conflict(tmp_path, {"train@gru": {"md5": "1"}}, {"train@gru": {"md5": "2"}})
    conflicting = (tmp_path / "dvc.lock").read_text()
    result = resolve(tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: both sides changed train@gru: keep one side's with")
    assert len(result.stderr.splitlines()) == 1
    assert (tmp_path / "dvc.lock").read_text() == conflicting


def test_without_git_there_is_one_clear_line(tmp_path: Path) -> None:
    assert resolve(tmp_path).stderr.startswith("error: not a git repository: run this in the clone")


def test_without_a_conflict_there_is_one_clear_line(tmp_path: Path) -> None:
    Conflict(tmp_path, {"train@gru": {"md5": "1"}}, {"train@lstm": {"md5": "2"}}).git("merge", "--abort")
    assert resolve(tmp_path).stderr == "error: git has no conflict in dvc.lock: nothing to merge\n"
