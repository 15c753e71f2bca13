"""The demo's workspace: complete, its own DVC root, and out of everything else's way."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.demo import PROJECT, build_workspace, commit, workspace_environment
from pipeline.project.console import UserError
from pipeline.project.files import SPLITS
from pipeline.settings.params import load_params
from tests.small import recipe_params, recipe_text


def dvc(folder, *arguments):
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.check_output(command, cwd=folder, env=workspace_environment(), text=True).split()


def test_a_workspace_has_the_code_the_settings_and_the_sample_corpus(tmp_path):
    build_workspace(tmp_path, recipe_text("demo"))
    modules = {path.relative_to(PROJECT) for path in (PROJECT / "pipeline").rglob("*.py")}
    assert {path.relative_to(tmp_path) for path in (tmp_path / "pipeline").rglob("*")} >= modules
    assert load_params(tmp_path / "params.yaml") == recipe_params("demo")
    assert all((tmp_path / f"data/sample/sample.{split}.txt").stat().st_size for split in SPLITS)


def test_a_workspace_built_again_keeps_its_results_and_drops_what_is_no_longer_code(tmp_path):
    build_workspace(tmp_path, recipe_text("demo"))
    result, stale_module = tmp_path / "results/result.txt", tmp_path / "pipeline/stale.py"
    for path in (result, stale_module):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    build_workspace(tmp_path, recipe_text("demo"))
    assert result.exists()
    assert not stale_module.exists()


def test_a_workspace_inside_another_is_a_dvc_root_whose_stages_the_outer_one_does_not_see(tmp_path):
    inner = tmp_path / ".demo"
    build_workspace(tmp_path, recipe_text("demo"))
    stages = dvc(tmp_path, "stage", "list", "--all", "--name-only")
    build_workspace(inner, recipe_text("demo"))
    assert dvc(inner, "root") == ["."]
    assert dvc(tmp_path, "stage", "list", "--all", "--name-only") == stages != []


def git(folder, *arguments):
    return subprocess.check_output(["git", *arguments], cwd=folder, env=workspace_environment(), text=True).strip()


def test_a_workspace_with_git_is_a_repository_of_its_own_with_a_commit_for_each_change(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # where nobody has told git who they are
    build_workspace(tmp_path / "outer", recipe_text("demo"), with_git=True)
    inner = tmp_path / "outer/.demo"
    for _ in range(2):
        build_workspace(inner, recipe_text("demo"), with_git=True)
        commit(inner)
    assert Path(git(inner, "rev-parse", "--show-toplevel")).samefile(inner)
    assert git(inner, "rev-list", "--count", "HEAD") == "1"
    assert git(inner, "status", "--porcelain") == ""
    assert {"params.yaml", "dvc.yaml"} <= set(git(inner, "ls-files").splitlines())
    assert not any(
        name.startswith(("data/sample", ".dvc/config.local")) for name in git(inner, "ls-files").splitlines()
    )
    assert dvc(inner, "params", "diff") == []
    (inner / "params.yaml").write_text((inner / "params.yaml").read_text().replace('"epochs": 6', '"epochs": 3'))
    assert dvc(inner, "params", "diff")[-2:] == ["6", "3"]


def test_what_git_refuses_is_one_line(tmp_path):
    build_workspace(tmp_path, recipe_text("demo"), with_git=True)
    (tmp_path / ".git/index.lock").touch()  # left by a power cut
    with pytest.raises(UserError, match=r"`git add` failed in .*: fix that, then run this again"):
        commit(tmp_path)


REPRODUCING = """
from pathlib import Path
from pipeline import demo
from pipeline.project.console import run

demo.SECONDS_TO_END = 0
run(lambda: demo.reproduce(Path()))
"""


def test_a_kill_ends_dvc_too_though_it_reached_the_demo_alone(tmp_path):
    (tmp_path / "dvc.py").write_text("import time\nprint('running', flush=True)\ntime.sleep(200)\n")  # for DVC itself
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(
        [sys.executable, "-c", REPRODUCING], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    ) as command:
        assert command.stdout.readline() == b"running\n"
        command.terminate()
        assert command.stdout.read() == b""  # which is at its end when both are
        assert command.wait() == 130


def test_nothing_in_the_environment_leads_out_of_the_workspace(monkeypatch):
    for name in ("DVC_ROOT", "DVC_EXP_NAME", "GIT_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("PATH", "/elsewhere")
    environment = workspace_environment()
    assert "elsewhere" not in environment.values()
    command = [shutil.which("python", path=environment["PATH"]), "-c", "import sys; print(sys.prefix)"]
    assert subprocess.check_output(command, env=environment, text=True).strip() == sys.prefix
