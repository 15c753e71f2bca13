"""Draw sentences from a trained model, one per line, without their <eos>.

The same model, options and seed give the same text on the same machine. <unk> stands for a rare word, as in the text
that the model was trained on.
"""

import argparse

from pipeline.corpus.vocabulary import Encoder
from pipeline.corpus.words import UNK
from pipeline.inference.generation import continuations
from pipeline.inference.trained import load_trained
from pipeline.project.arguments import above
from pipeline.project.console import UserError, progress, run, say, warn

MOST = 10**9
MOST_WORDS = 100_000  # per line; a whole batch of lines is in memory


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.generate", description=__doc__)
    parser.add_argument("model", help="a trained model, such as lstm_dropout: a folder's name in results/models")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="words that every line starts with")
    parser.add_argument(
        "--temperature",
        type=above(0.0),
        default=1.0,
        metavar="T",
        help="divides the logits: below 1 favours probable words, above 1 rare ones (default 1)",
    )
    parser.add_argument(
        "--top-k", type=above(0, MOST), metavar="K", help="draw from the K most probable words (default all)"
    )
    parser.add_argument(
        "--seed", type=above(-1, 2**64 - 1), default=1, metavar="N", help="another seed gives another text (default 1)"
    )
    parser.add_argument("--lines", type=above(0, MOST), default=10, metavar="N", help="number of lines (default 10)")
    parser.add_argument(
        "--max-words",
        type=above(0, MOST_WORDS),
        default=100,
        metavar="N",
        help="cut a line off after N new words (default 100)",
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if not arguments.prompt.isascii() and any("\ud800" <= letter <= "\udfff" for letter in arguments.prompt):
        raise UserError("--prompt: not text in UTF-8: convert it to UTF-8")

    trained = load_trained(arguments.model)
    encoder = Encoder(trained.vocabulary, lower_case=trained.lower_case)
    prompt = encoder.encode(arguments.prompt.split(), "--prompt")
    if prompt.unknown:
        unknown = ", ".join(prompt.words[place] for place in prompt.unknown)
        warn(f"not in {arguments.model}'s vocabulary, and read as {UNK}: {unknown}")
    cut = 0
    with progress(arguments.lines, f"generate with {arguments.model}", "line") as bar:
        for line, ended in continuations(
            trained,
            prompt,
            arguments.lines,
            arguments.max_words,
            arguments.seed,
            arguments.temperature,
            arguments.top_k,
        ):
            cut += not ended
            say(line)
            bar.update()
    if cut:
        warn(f"{cut:,} of {arguments.lines:,} lines did not end within {arguments.max_words} words: see --max-words")


if __name__ == "__main__":
    run(main, interrupted="interrupted")
