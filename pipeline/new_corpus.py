"""Turn your own text into a recipe: its three splits in `data/NAME` and its settings in `recipes/NAME.yaml`.

Give one text in UTF-8, with one sentence per line and words separated by whitespace, or three texts for training,
validation and test. A single text is split by lines: equal lines go into the same split, and empty ones are dropped.
`make repro RECIPE=NAME` then trains two models on it and writes the report.
"""

import argparse
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.corpus.splitting import divide, find_texts
from pipeline.corpus.vocabulary import build_vocabulary
from pipeline.corpus.words import EOS, UNK, read_lines
from pipeline.project.arguments import above
from pipeline.project.console import UserError, counted, progress, run, say, warn
from pipeline.project.files import PARAMS, PROCESSED, RAW, RECIPES, SAMPLE, SPLITS, atomic_write, sha256
from pipeline.settings.mistakes import validate
from pipeline.settings.params import parse_yaml
from pipeline.settings.recipes import read_base
from pipeline.settings.schema import LONGEST_NAME, NAME, PENN_TREEBANK, Vocabulary

TOKENS_TO_SEE = 1_000_000  # by a model over all its epochs, within these limits:
FEWEST_EPOCHS, MOST_EPOCHS = 4, 10
SMALL, EPOCHS_IF_SMALL = 70_000, 20  # tokens, and the LSTM's epochs with fewer of them: docs/experiments.md
FAST, SLOW = 15_000, 4_000  # tokens a second on two cores, with and without bfloat16 products: docs/performance.md
FULL_SPEED = 10_000  # words; a step with more takes as many times as long: docs/scaling.md
MOST_OUTSIDE = 0.5  # of all words; above this there is a warning
BOUNDS = {"max_size": 10_000, "min_count": 2}  # of the vocabulary, where the text has no <unk> of its own

Words = dict[str, Any]  # what the user sets in `preprocess.vocabulary`

RECIPE = """\
# A text of my own, as `python -m pipeline.new_corpus` found it.

download:
  sources: [data/{name}]
  files:
    train: {{name: train.txt, sha256: {train}}}
    valid: {{name: valid.txt, sha256: {valid}}}
    test: {{name: test.txt, sha256: {test}}}

preprocess:
  corpus: "{name}"
  vocabulary: {{max_size: {max_size}, min_count: {min_count}, lower_case: {lower_case}}}
  expected: null

train:                      # as in recipes/fast.yaml, with more dropout for more epochs
  tied_weights: true
  locked_dropout: true
  unigram_bias: true        # AdamW would spend the first epochs learning how frequent each word is
  epochs: {epochs}
  bptt: 35
  random_windows: true
  optimizer: {{name: adamw, weight_decay: 0.01}}
  learning_rate: 0.008
  schedule: {{name: linear, warmup: 0.02}}
  max_grad_norm: 1.0

models:
{models}
report:
  course_report: null       # those figures are for Penn Treebank
"""

MODELS_OF_A_LARGER_TEXT = """\
  lstm: {{cell: lstm, dropout: {dropout}}}
  gru: {{cell: gru, dropout: {dropout}, learning_rate: 0.006}}
"""
MODELS_OF_A_SMALL_TEXT = """\
  # On so small a text, AdamW makes the LSTM over-fit: plain SGD gets it further, in more epochs.
  lstm: {{cell: lstm, dropout: 0.4, unigram_bias: false, epochs: {lstm_epochs}, learning_rate: 30.0,
    optimizer: {{name: sgd, momentum: 0.0, weight_decay: 1.2e-6}}, max_grad_norm: 0.25}}
  gru: {{cell: gru, dropout: 0.5, learning_rate: 0.006, optimizer: {{weight_decay: 0.1}}}}
"""


def new_corpus(texts: Sequence[Path], name: str, words: Words, shares: Sequence[float], seed: int) -> None:
    """Write the splits and the recipe. Raises UserError, and then writes nothing."""
    folder, recipe = RAW.with_name(name), RECIPES / f"{name}.yaml"
    counts = {split: Counter({EOS: 0}) for split in SPLITS}
    with ExitStack() as stack:
        files = {split: stack.enter_context(atomic_write(folder / f"{split}.txt")) for split in SPLITS}
        for split, line in _lines(texts, words["lower_case"], shares, seed):
            files[split].write(" ".join(line) + "\n")
            counts[split].update(line)
            counts[split][EOS] += 1
        if UNK not in counts["train"] or words.keys() & BOUNDS.keys():
            words = BOUNDS | words
        chosen = validate(Vocabulary, words, recipe, ("preprocess", "vocabulary"))
        vocabulary = build_vocabulary(counts["train"], chosen.max_size, chosen.min_count)
        unknown = {split: counts[split].keys() - set(vocabulary) for split in SPLITS}
        check_usable(counts, unknown, vocabulary)
    for split in SPLITS:
        tokens, lines = counts[split].total(), counts[split][EOS]
        share = outside(counts[split], unknown[split])
        say(
            f"{folder / split}.txt: {counted(lines, 'line')}, {counted(tokens, 'token')}, {len(counts[split]) - 1:,} "
            f"different words; {share:.1%} of all words are outside the vocabulary"
        )
    say(f"vocabulary: {len(vocabulary):,} words of the training text")
    if (share := outside(counts["train"], unknown["train"])) > MOST_OUTSIDE:
        warn(f"{share:.0%} of all words to train on become {UNK}: lower --min-count or raise --max-size")
    tokens = counts["train"].total()
    epochs = min(max(round(TOKENS_TO_SEE / tokens), FEWEST_EPOCHS), MOST_EPOCHS)
    lstm_epochs, models = (
        (EPOCHS_IF_SMALL, MODELS_OF_A_SMALL_TEXT) if tokens < SMALL else (epochs, MODELS_OF_A_LARGER_TEXT)
    )
    models = models.format(dropout=0.4 if epochs == MOST_EPOCHS else 0.2, lstm_epochs=lstm_epochs)
    digests = {split: sha256(folder / f"{split}.txt") for split in SPLITS}
    with atomic_write(recipe) as file:
        in_yaml = {key: json.dumps(value) for key, value in chosen.model_dump().items()}
        file.write(RECIPE.format(name=name, epochs=epochs, models=models, **in_yaml, **digests))
    time = duration(tokens, len(vocabulary))
    say(f"{recipe}: an LSTM of {lstm_epochs} epochs and a GRU of {epochs}; an epoch takes {time}")
    say(f"next: `make repro RECIPE={name}`")


def outside(counts: Counter[str], unknown: Set[str]) -> float:
    """The share of a text's words that are unknown."""
    return sum(counts[word] for word in unknown) / max(1, counts.total() - counts[EOS])


def duration(tokens: int, words: int) -> str:
    """About how long an epoch takes; words: the size of the vocabulary."""
    work = tokens * max(1.0, words / FULL_SPEED)
    least, most = int(work / FAST) + 1, int(work / SLOW) + 1
    if least == most:
        return f"about {most} s on two cores"
    in_minutes = f"{least / 60:.0f} to {most / 60:.0f} min" if least > 120 else f"{least} to {most} s"
    return f"some {in_minutes} on two cores"


def check_usable(counts: Mapping[str, Counter[str]], unknown: Mapping[str, Set[str]], vocabulary: list[str]) -> None:
    """Raises UserError if `preprocess` would refuse these texts."""
    if empty := [split for split in SPLITS if counts[split].total() < 2]:
        raise UserError(f"the text for {empty[0]} is empty: give one that has words")
    if UNK not in vocabulary and (missing := sorted(unknown["valid"] | unknown["test"])):
        raise UserError(f"the training text has neither {missing[0]!r} nor {UNK} to stand for it: give --min-count 2")


def check_name(name: str, texts: Sequence[Path]) -> None:
    """Raises UserError if a corpus's name is invalid or taken. texts: the files of the new corpus"""
    if not re.fullmatch(NAME, name) or len(name) > LONGEST_NAME:
        raise UserError(f"{name!r} cannot name a corpus: give --name, with lower-case letters, digits and underscores")
    base = parse_yaml(read_base(), PARAMS)
    if name in (RAW.name, PROCESSED.name, SAMPLE.name, PENN_TREEBANK, base.get("recipe")):
        raise UserError(f"the name {name} is reserved: give another with --name")
    recipe, folder = RECIPES / f"{name}.yaml", RAW.with_name(name)
    if recipe.exists() or list(folder.glob("[!.]*")):
        existing = " ".join(path.as_posix() for path in (recipe, folder) if path.exists())
        in_the_way = any(real(path).is_relative_to(real(folder)) for path in texts)
        remove = "" if in_the_way else f", or `rm -r {existing}` first"
        raise UserError(f"the name {name} is taken: give another with --name{remove}")


def _lines(
    texts: Sequence[Path], lower_case: bool, shares: Sequence[float], seed: int
) -> Iterator[tuple[str, list[str]]]:
    """Each line's split and words, as they are to be written."""
    num_bytes = sum(path.stat().st_size for path in texts if path.exists())
    with progress(num_bytes * (2 if len(texts) == 1 else 1), "split", "B") as bar:
        remedy = "give a text, one sentence per line"
        read = partial(read_lines, remedy=remedy, on_bytes=bar.update, lower_case=lower_case)
        if len(texts) == 1:
            split_of = divide(filter(None, read(texts[0])), shares, seed)
            yield from ((split_of(line), line) for line in filter(None, read(texts[0])))
            return
        for split, path in zip(SPLITS, texts, strict=True):
            yield from ((split, line) for line in read(path))


def real(path: Path) -> Path:
    """The path without links, as far as they can be followed: they may form a loop."""
    return Path(os.path.realpath(path))


def name_of(path: Path) -> str:
    """A corpus's name, made from that of its file or folder; empty if that has no ASCII letter or digit."""
    return re.sub(r"[^a-z0-9]+", "_", real(path).name.partition(".")[0].lower()).strip("_")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.new_corpus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", nargs="+", type=Path, metavar="TEXT", help="one text, three, or a folder of either")
    parser.add_argument("--name", help="the corpus's name (default: that of the file or folder)")
    parser.add_argument("--max-size", type=int, metavar="N", help="largest size of the vocabulary (default 10000)")
    parser.add_argument("--min-count", type=int, metavar="N", help="rarer words become <unk> (default 2)")
    parser.add_argument("--lower-case", action="store_true", help="turn all words into lower case")
    parser.add_argument(
        "--shares",
        nargs=3,
        type=above(0.0),
        default=(80, 10, 10),
        metavar=("TRAIN", "VALID", "TEST"),
        help="how to divide the lines of one text (default 80 10 10)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another seed gives another split (default 1)")
    arguments = parser.parse_args()
    bounds = {"max_size": arguments.max_size, "min_count": arguments.min_count}
    words = {key: value for key, value in bounds.items() if value is not None} | {"lower_case": arguments.lower_case}
    paths = arguments.texts
    name = arguments.name or name_of(paths[0] if len(paths) == 1 else real(paths[0]).parent)
    check_name(name, paths)
    new_corpus(find_texts(paths), name, words, arguments.shares, arguments.seed)


if __name__ == "__main__":
    run(main)
