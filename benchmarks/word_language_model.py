"""How far does PyTorch's example `word_language_model` get in the time that one of our models took to train?

Train ours first, for example with `make repro RECIPE=wikitext2`. Then this runs the example's main.py, unchanged and
with its defaults, on the same texts (data/raw) and the same machine. After our model's training time, but not before
the end of its first epoch, it sends SIGINT, upon which the example evaluates its best weights on the test text. Times
are those that both report for their epochs, including validation but not the start. Unknown options are passed to
main.py. Run nothing else at the same time.

    python benchmarks/word_language_model.py ../examples/word_language_model lstm_dropout
    python benchmarks/word_language_model.py ../examples/word_language_model lstm_dropout --minutes 60 --tied
"""

import argparse
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.artifacts.history import history_path, read_history
from pipeline.artifacts.metrics import read_metrics
from pipeline.project.arguments import above
from pipeline.project.console import UserError, run, say
from pipeline.project.files import RAW

EPOCH = re.compile(r"end of epoch +\d+ \| time: +([\d.]+)s .*valid ppl +([\d.]+)")
TEST = re.compile(r"End of training .*test ppl +([\d.]+)")

Curve = list[tuple[float, float]]  # seconds since the start, validation perplexity


def run_example(folder: Path, options: list[str], seconds: float) -> tuple[Curve, float]:
    """Run the example for this long, or for an epoch -> its curve and its test perplexity.

    Raises UserError if it fails.
    """
    curve: Curve = []
    test = None
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it, as do its children
    with TemporaryDirectory() as weights:
        files = ["--data", str(RAW.absolute()), "--save", str(Path(weights) / "model.pt")]
        command = [sys.executable, "-u", "main.py", *files, *options]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as example:
            assert example.stdout
            end = None
            for line in example.stdout:
                end = end or time.monotonic() + seconds  # the first line comes after the start
                say(line.rstrip())
                if epoch := EPOCH.search(line):
                    curve.append(((curve[-1][0] if curve else 0.0) + float(epoch[1]), float(epoch[2])))
                elif ended := TEST.search(line):
                    test = float(ended[1])
                elif curve and time.monotonic() > end and "batches" in line:  # training, not writing its weights
                    example.send_signal(signal.SIGINT)
                    end = float("inf")
    if test is None:
        raise UserError(f"{folder / 'main.py'} ended without a test perplexity: give it more --minutes")
    return curve, test


def lowest(curve: Curve, seconds: float) -> str:
    """The lowest validation perplexity so far at this time."""
    found = [perplexity for at, perplexity in curve if at <= seconds]
    return f"{min(found):.2f}" if found else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", type=Path, help="the folder word_language_model in a copy of pytorch/examples")
    parser.add_argument("model", help="one of our trained models")
    parser.add_argument("--minutes", type=above(0.0), help="how long the example may train (default: as long as ours)")
    arguments, options = parser.parse_known_args()
    if not (arguments.example / "main.py").exists():
        raise UserError(f"{arguments.example} has no main.py: give the folder word_language_model")
    ours: Curve = []
    for record in read_history(history_path(arguments.model)):
        ours.append(((ours[-1][0] if ours else 0.0) + record.seconds, record.valid_perplexity))
    took = ours[-1][0]
    theirs, test = run_example(arguments.example, options, 60 * arguments.minutes if arguments.minutes else took)
    print("| minutes | word_language_model, valid | ours, valid |")
    print("| ---: | ---: | ---: |")
    for seconds in sorted({at for at, _ in ours + theirs}):
        print(f"| {seconds / 60:.2f} | {lowest(theirs, seconds)} | {lowest(ours, seconds)} |")
    metrics = read_metrics(arguments.model)
    print(f"test: word_language_model {test:.2f}, {arguments.model} {metrics.test_perplexity:.2f}")


if __name__ == "__main__":
    run(main)
