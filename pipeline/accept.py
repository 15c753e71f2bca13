"""Tell DVC that an edit of pipeline/lm changes no number, after proving it.

DVC sees that the code has changed, but not whether its results would. This command runs the golden trajectories (the
first steps and the evaluation of eleven models, `tests/test_golden.py`). If they hold, it writes the digest of the
current code into dvc.lock for every model that was trained or evaluated, and into the trainings of recipes that are
kept in results/reference: the results stay valid, and nothing is trained again. Settings and data are left as they are
in dvc.lock, so an edit of params.yaml still trains what it affects.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from pipeline.artifacts.dvc_lock import LOCK, read_lock, renew_code
from pipeline.artifacts.reference import renew_kept_runs
from pipeline.project.console import UserError, run, say

PROOF = "tests/test_golden.py"
COVERED = "float32 on the CPU, the first 20 windows, static and dynamic evaluation, the four default models and others"


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m pipeline.accept", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    if not Path(PROOF).exists():
        raise UserError(f"{PROOF} not found: run from the root of a clone")
    read_lock()  # report a damaged one before the proof, which takes minutes
    say(f"running {PROOF} ...")
    if subprocess.run([sys.executable, "-m", "pytest", "-q", PROOF], check=False).returncode:
        raise UserError(
            f"{PROOF} fails: this change moves numbers, and `dvc repro` has to train again ({LOCK} is unchanged)"
        )
    renewed = renew_code(("train", "evaluate"))
    renew_kept_runs()
    say(f"the golden trajectories hold ({COVERED})")
    say(f"{LOCK}: accepted the code for {', '.join(renewed)}" if renewed else f"{LOCK} already has this code")


if __name__ == "__main__":
    run(main)
