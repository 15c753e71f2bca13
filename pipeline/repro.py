"""Run what params.yaml, the data or the code have made stale: `dvc repro`, as `make repro` runs it.

Takes the arguments of `dvc repro`. Before it starts, DVC gets what the repository has in results/reference, so that
nobody has to train it, and its cache what it lacks of the results that are here. Where no source delivers the corpus,
whatever can do without it works all the same. Where another DVC is at work on the same stages, this waits for it.
"""

import argparse

from pipeline.project.console import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.repro", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="how many models to train at a time; 1 unless given")
    known, arguments = parser.parse_known_args()
    from pipeline.artifacts.reproduction import reproduce  # with DVC, which takes a second

    reproduce(arguments, known.jobs)


if __name__ == "__main__":
    run(main)
