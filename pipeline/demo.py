"""Run the whole pipeline on a small corpus of invented words, in a workspace of its own: the folder `.demo`.

Your own data, results, MLflow store and DVC cache are left alone. The workspace is kept: look around in it, change its
params.yaml and run `dvc repro` there. The next demo resets its code and settings and reruns what differs.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.artifacts.trials import study_path
from pipeline.corpus import sample
from pipeline.project.console import run, say
from pipeline.project.files import PARAMS, PARAMS_BASE, REPORT, SAMPLE, atomic_write
from pipeline.project.recipes import lay_over, read_base

PROJECT = Path(__file__).resolve().parents[1]
WORKSPACE = PROJECT / ".demo"
RECIPE = PROJECT / "recipes/demo.yaml"

# The folder is a DVC root without git, and it does not use a cache that the user shares between projects.
DVC_CONFIG = "[core]\n    no_scm = true\n[cache]\n    dir = cache\n"


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.demo", description=__doc__).parse_args()
    build_workspace(WORKSPACE, lay_over(read_base(PROJECT), RECIPE))
    exit_code = reproduce(WORKSPACE)
    if exit_code:
        sys.exit(exit_code)
    say(_where_to_look(WORKSPACE, Path(sys.executable).parent))


def build_workspace(destination: Path, params: str) -> None:
    """Create or refresh a folder in which `dvc repro` runs this code on the sample corpus; params: params.yaml's text.

    Only code, settings and corpus are replaced: the results of earlier runs are kept, and DVC decides what is stale.
    """
    for folder in ("pipeline", ".dvc/plots"):
        shutil.rmtree(destination / folder, ignore_errors=True)
        shutil.copytree(PROJECT / folder, destination / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("dvc.yaml", ".dvc/config", ".dvcignore"):
        shutil.copyfile(PROJECT / file, destination / file)
    with atomic_write(destination / PARAMS) as settings:
        settings.write(params)
    seeds = destination / study_path("seeds")  # the report depends on it: empty, no such study
    seeds.parent.mkdir(parents=True, exist_ok=True)
    seeds.touch()
    (destination / PARAMS_BASE).unlink(missing_ok=True)  # left by a recipe that was laid over the earlier settings
    with atomic_write(destination / ".dvc/config.local") as config:
        config.write(DVC_CONFIG)
    sample.write(destination / SAMPLE)


def reproduce(workspace: Path) -> int:
    """Run `dvc repro` in a workspace and return its exit code."""
    with subprocess.Popen([sys.executable, "-m", "dvc", "repro"], cwd=workspace, env=workspace_environment()) as dvc:
        try:
            return dvc.wait()
        except KeyboardInterrupt:
            dvc.wait()  # Ctrl-C reached the stage too; DVC records the failure and releases its locks
            raise


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
    """Where the result is, and commands that show more, as they can be typed in the current folder."""
    folder, programs = Path(os.path.relpath(workspace)), Path(os.path.relpath(programs))
    return "\n".join(
        [
            f"The demo's report: {folder / REPORT / 'report.md'}",
            f"Its metrics:       {programs / 'dvc'} --cd {folder} metrics show",
            f"Its runs:          {programs / 'mlflow'} ui --backend-store-uri sqlite:///{folder / 'mlflow.db'}",
        ]
    )


if __name__ == "__main__":
    run(main)
