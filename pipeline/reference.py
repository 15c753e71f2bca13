"""Restore weights that are kept in git, so that nobody has to train them: of the reference run and of recipes.

They are in results/reference, DVC's remote `reference`. A model gets the weights in dvc.lock if params.yaml still has
its settings, its history is unchanged, and it neither has weights nor is being trained: your own are left alone. `make
repro` and `make ui` start with this; it needs no network.
"""

import argparse

from pipeline.artifacts.reference import RUNS, keep, missing_weights, restore_kept
from pipeline.project.console import UserError, run, say
from pipeline.project.files import REFERENCE


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.reference", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="store the results of the models in params.yaml there")
    arguments = parser.parse_args()
    if not (arguments.keep or missing_weights() or RUNS.exists()):
        return
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]

    try:
        with Repo(_wait_for_lock=True) as repo:
            if arguments.keep:
                say(f"kept in {REFERENCE}: {', '.join(keep(repo))}")
            restore_kept(repo)
    except DvcException as error:
        raise UserError(f"DVC: {' '.join(str(error).split())}") from None


if __name__ == "__main__":
    run(main)
