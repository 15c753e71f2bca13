"""Run what params.yaml, the data or the code have made stale: `dvc repro`, as `make repro` runs it.

Takes the arguments of `dvc repro`. First it fills DVC's cache from results/reference, so that nobody has to train what
is there, and from the results in place. If no source delivers the corpus, all that does not need it still works. If
another DVC is running the same stages, this waits for it.
"""

import argparse

from pipeline.project.console import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.repro", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="how many models to train at a time (default 1)")
    known, arguments = parser.parse_known_args()
    from pipeline.artifacts.reproduction import reproduce  # with DVC, which takes a second

    reproduce(arguments, known.jobs)


if __name__ == "__main__":
    run(main)
