"""Run the whole pipeline on a small corpus of invented words, in a separate workspace: the folder `.demo`.

Your own data, results, MLflow store and DVC cache are not touched. The workspace is a git repository of its own and is
kept: docs/tour.md shows you around. The next demo resets its code and settings, runs what has changed and commits it.
"""

import argparse
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from pipeline.artifacts.trials import SEEDS
from pipeline.corpus import sample
from pipeline.project.console import UserError, run, say
from pipeline.project.files import PARAMS, PARAMS_BASE, REPORT, SAMPLE, atomic_write
from pipeline.settings.recipes import apply_recipe, read_base

PROJECT = Path(__file__).resolve().parents[1]
WORKSPACE = PROJECT / ".demo"
RECIPE = PROJECT / "recipes/demo.yaml"
SECONDS_TO_END = 10

# The folder is a DVC root of its own, and it does not use a cache that the user shares between projects.
DVC_CONFIG = "[core]\n    no_scm = {no_scm}\n[cache]\n    dir = cache\n"


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.demo", description=__doc__).parse_args()
    with_git = shutil.which("git") is not None
    build_workspace(WORKSPACE, apply_recipe(read_base(PROJECT), RECIPE), with_git)
    exit_code = reproduce(WORKSPACE)
    if exit_code:
        sys.exit(exit_code)
    if with_git:
        commit(WORKSPACE)
    say(_where_to_look(WORKSPACE, Path(sys.executable).parent))


def build_workspace(destination: Path, params: str, with_git: bool = False) -> None:
    """Create or refresh a folder in which `dvc repro` runs this code on the sample corpus; params: params.yaml's text.

    Only code, settings and corpus are replaced: the results of earlier runs are kept, and DVC decides what is stale.
    With git, the folder is a repository of its own.
    """
    for folder in ("pipeline", ".dvc/plots"):
        shutil.rmtree(destination / folder, ignore_errors=True)
        shutil.copytree(PROJECT / folder, destination / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", ".gitattributes"):
        shutil.copyfile(PROJECT / file, destination / file)
    with atomic_write(destination / PARAMS) as settings:
        settings.write(params)
    seeds = destination / SEEDS  # the report depends on it
    seeds.parent.mkdir(parents=True, exist_ok=True)
    if not seeds.exists():
        seeds.write_text("\n")  # no study; DVC warns about an empty file
    (destination / PARAMS_BASE).unlink(missing_ok=True)  # left by a recipe that was applied earlier
    with atomic_write(destination / ".dvc/config.local") as config:
        config.write(DVC_CONFIG.format(no_scm=str(not with_git).lower()))
    sample.write(destination / SAMPLE)
    if with_git:
        _git(destination, "init", "--quiet")


def reproduce(workspace: Path) -> int:
    """Run what is stale in a workspace and return the exit code."""
    command = [sys.executable, "-m", "pipeline.repro"]
    with subprocess.Popen(command, cwd=workspace, env=workspace_environment()) as repro:
        try:
            return repro.wait()
        except KeyboardInterrupt:
            with suppress(subprocess.TimeoutExpired):
                return repro.wait(SECONDS_TO_END)  # Ctrl-C reached it too, and it has said how to continue
            repro.terminate()  # SIGTERM reached nobody else
            raise


def commit(workspace: Path) -> None:
    """Commit whatever has changed in a workspace's repository, even if git has no user name and e-mail."""
    if _git(workspace, "config", "user.email", check=False):
        _git(workspace, "config", "user.name", "demo")
        _git(workspace, "config", "user.email", "demo@localhost")
    _git(workspace, "add", "--all")
    if _git(workspace, "diff", "--cached", "--quiet", check=False):
        _git(workspace, "-c", "commit.gpgsign=false", "commit", "--quiet", "--no-verify", "--message", "The demo")


def _git(folder: Path, *arguments: str, check: bool = True) -> int:
    """Run git in a folder and return its exit code. With `check`, raises UserError if it is not 0."""
    code = subprocess.run(
        ["git", *arguments], cwd=folder, env=workspace_environment(), stdout=subprocess.DEVNULL, check=False
    ).returncode
    if code and check:
        raise UserError(f"`git {arguments[0]}` failed in {folder}, see above: fix that, then run this again")
    return code


def workspace_environment() -> dict[str, str]:
    """This process's environment without anything that would lead DVC or MLflow out of the workspace.

    Stages call `python`, which has to be this one.
    """
    elsewhere = ("DVC_ROOT", "DVC_EXP_", "GIT_", "MLFLOW_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(elsewhere)}
    programs = Path(sys.executable).parent
    environment["PATH"] = os.pathsep.join([str(programs), environment.get("PATH", os.defpath)])
    environment["MLFLOW_DISABLE_TELEMETRY"] = "true"
    environment["OMP_NUM_THREADS"] = "1"  # models this small gain nothing from more
    return environment


def _where_to_look(workspace: Path, programs: Path) -> str:
    """Where the result is, and commands that show more, ready to type in the current folder."""
    folder, programs = Path(os.path.relpath(workspace)), Path(os.path.relpath(programs))
    return "\n".join(
        [
            f"The demo's report: {folder / REPORT / 'index.html'}",
            f"Its metrics:       {programs / 'dvc'} --cd {folder} metrics show",
            f"Its runs:          cd {folder} && {Path(os.path.relpath(sys.executable, workspace))} -m pipeline.ui",
            "A tour of it:      docs/tour.md",
        ]
    )


if __name__ == "__main__":
    run(main)
