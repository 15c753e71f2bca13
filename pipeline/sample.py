"""Write a small corpus of invented words with exactly known entropy, to try out the pipeline without Penn Treebank."""

import argparse
from pathlib import Path

from pipeline.corpus.sample import true_perplexity, write
from pipeline.project.console import UserError, run, say


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.sample", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write sample.{train,valid,test}.txt, such as data/sample")
    folder = parser.parse_args().folder
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name one to write the sample corpus to")
    write(folder)
    say(f"{folder}: the sample corpus, true perplexity {true_perplexity():.2f}")


if __name__ == "__main__":
    run(main)
