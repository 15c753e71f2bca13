"""Perplexity of a text under a trained model: of each line and of the whole text.

Each line is a sentence, with words separated by whitespace; the end of a line is a token too, predicted like a word.
Each line is scored on its own: its first word is predicted from <eos> alone, so a line's perplexity does not depend on
the lines around it. (So the perplexity of a split of the corpus differs from that in `evaluate`, which carries the
state from line to line.) A word outside the model's vocabulary is read and predicted as <unk>, and counted.
"""

import argparse
import json
import math
import os
import stat
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.corpus.words import EOS, UNK, read_lines, shown_path
from pipeline.inference.sentences import SentenceScore, score_sentences
from pipeline.inference.trained import load_trained
from pipeline.lm.evaluation import perplexity
from pipeline.project.console import UserError, counted, progress, run, say, warn
from pipeline.project.lines import Lines

MANY_UNKNOWN = 0.5
NAME_A_TEXT = "name a text, one sentence per line, or - for stdin"


class Total:
    """The total over all lines: losses are summed over all tokens and divided once."""

    def __init__(self) -> None:
        self.lines = self.tokens = self.unknown_words = 0
        self.loss = 0.0

    def add(self, score: SentenceScore) -> None:
        self.lines += 1
        self.tokens += score.num_tokens
        self.unknown_words += len(score.sentence.unknown)
        self.loss += score.total_loss

    @property
    def words(self) -> int:
        return self.tokens - self.lines

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss / self.tokens)


class ByteProgress:
    """Advances a progress bar of bytes as input is scored, even within a long line."""

    def __init__(self, bar: tqdm | Lines) -> None:
        self._bar = bar
        self._before = self._read = 0

    def read(self, number: int) -> None:
        self._read += number

    def scored(self, share: float) -> None:
        """share: of the bytes read since it was last 1."""
        position = self._before + round((self._read - self._before) * share)
        self._bar.update(position - self._bar.n)
        if share == 1:
            self._before = self._read


def surprisals(score: SentenceScore) -> list[dict[str, Any]]:
    """Each word, and `<eos>`, with its surprisal in bits: -log2 of its probability."""
    unknown = set(score.sentence.unknown)
    bits = (score.losses.double() / math.log(2)).tolist()
    return [
        {"word": word, "unknown": position in unknown, "surprisal_bits": surprisal}
        for position, (word, surprisal) in enumerate(zip([*score.sentence.words, EOS], bits, strict=True))
    ]


def as_record(number: int, score: SentenceScore, words: bool) -> dict[str, Any]:
    """A line's score for a program."""
    record: dict[str, Any] = {
        "line": number,
        "tokens": score.num_tokens,
        "unknown_words": len(score.sentence.unknown),
        "perplexity": score.perplexity,
    }
    return record | {"words": surprisals(score)} if words else record


def as_text(number: int, score: SentenceScore, words: bool) -> str:
    """A line's score for a person: a row, with a row below for each word if asked for."""
    rows = [f"{number:>7}  {score.num_tokens:>6}  {len(score.sentence.unknown):>7}  {score.perplexity:>10.2f}"]
    if words:
        for word in surprisals(score):
            rows.append(f"{word['surprisal_bits']:>46.2f}  {word['word']}{f' ({UNK})' if word['unknown'] else ''}")
    return "\n".join(rows)


def score(name: str, path: Path | None, *, words: bool, as_json: bool) -> None:
    """Print the scores of a file's lines, or of stdin's if path is None, and of the whole text. Raises UserError."""
    trained = load_trained(name)
    total = Total()
    records = []
    header = f"{'line':>7}  {'tokens':>6}  {'unknown':>7}  {'perplexity':>10}" + ("     bits  word" if words else "")
    with progress(_size(path), f"score with {name}", "B") as bar:
        byte_progress = ByteProgress(bar)
        lines = read_lines(path, NAME_A_TEXT, byte_progress.read)
        for number, scored in enumerate(score_sentences(trained, lines, byte_progress.scored), start=1):
            total.add(scored)
            if as_json:
                records.append(as_record(number, scored, words))
            else:
                say(f"{header}\n{as_text(number, scored, words)}" if number == 1 else as_text(number, scored, words))
    source = "stdin" if path is None else shown_path(path)
    if not total.words:
        raise UserError(f"{source} is empty: give a text, one sentence per line, or - for stdin")
    unknown = total.unknown_words / total.words
    if unknown > MANY_UNKNOWN:
        warn(f"{unknown:.0%} of the words are not in {name}'s vocabulary: is the model of another corpus?")
    if as_json:
        whole = {"tokens": total.tokens, "unknown_words": total.unknown_words, "perplexity": total.perplexity}
        document = {"model": name} | whole | {"lines": records}
        say(json.dumps(document, indent=2, ensure_ascii="utf" not in str(sys.stdout.encoding).lower()))
    else:
        say(
            f"{source}: perplexity {total.perplexity:.2f}"
            f" of {counted(total.tokens, 'token')} in {counted(total.lines, 'line')}; "
            f"{total.unknown_words:,} of {counted(total.words, 'word')} unknown ({unknown:.1%})"
        )


def _size(path: Path | None) -> int | None:
    """The size of the input in bytes; None if it is not a plain file."""
    try:
        status = os.fstat(sys.stdin.fileno()) if path is None else path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python -m pipeline.score lstm_dropout data/raw/test.txt\n"
        "  echo 'the company said it expects a profit' | python -m pipeline.score lstm_dropout --words",
    )
    parser.add_argument("model", help="a trained model, such as lstm_dropout: a folder's name in results/models")
    parser.add_argument(
        "file", nargs="?", default="-", help="a UTF-8 text, one sentence per line; - is stdin (default)"
    )
    parser.add_argument("--words", action="store_true", help="also show each word's surprisal, in bits")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    arguments = parser.parse_args()
    path = None if arguments.file == "-" else Path(arguments.file)
    score(arguments.model, path, words=arguments.words, as_json=arguments.json)


if __name__ == "__main__":
    run(main, interrupted="interrupted")
