"""Turn the text of data/raw into token ids in data/processed, with the vocabulary of the train split.

A word is what stands between blanks. The end of each line is the token `<eos>`, also of an empty line (which is nothing
but `<eos>`) and of a last line that lacks its line break. Words of valid and test that train lacks become `<unk>`.
"""

import argparse
import json
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.console import UserError, run, say
from pipeline.corpus import EOS, UNK, id_dtype, write_corpus
from pipeline.files import CORPUS_METRICS, PARAMS, PROCESSED, RAW, SPLITS, atomic_write
from pipeline.params import CorpusSizes, load_params


def read_lines(path: Path) -> Iterator[list[str]]:
    """The words of each line, one line in memory at a time. Raises UserError when the file is not such a text."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                words = line.decode("utf-8").split()
                if b"\0" in line:
                    raise UserError(f"{path}, line {number}: not text but binary data: run `dvc repro download`")
                if EOS in words:
                    raise UserError(f"{path}, line {number}: has the word {EOS}, which stands for line ends: remove it")
                yield words
    except FileNotFoundError:
        raise UserError(f"{path} not found: run `dvc repro`, which downloads it") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}, line {number}: not text in UTF-8: convert it to UTF-8") from None


def build_vocabulary(path: Path) -> list[str]:
    """All words of a text and `<eos>`, the most frequent first, equally frequent ones by code point."""
    counts: Counter[str] = Counter()
    for words in read_lines(path):
        counts.update(words)
        counts[EOS] += 1
    return sorted(counts, key=lambda word: (-counts[word], word))


def encode(path: Path, vocabulary: list[str]) -> np.ndarray:
    """The text's ids [length], in the smallest type that holds them.

    Raises UserError at a word that the vocabulary lacks when it has no `<unk>` either, and when the text is empty.
    """
    dtype = id_dtype(len(vocabulary))
    ids = array(dtype.char)
    id_of = {word: number for number, word in enumerate(vocabulary)}
    unknown = id_of.get(UNK)
    for number, words in enumerate(read_lines(path), start=1):
        for word in words:
            known = id_of.get(word, unknown)
            if known is None:
                raise UserError(
                    f"{path}, line {number}: the train split lacks the word {word!r}, and {UNK} to stand for it: "
                    f"write {UNK} for rare words in {RAW / 'train.txt'}"
                )
            ids.append(known)
        ids.append(id_of[EOS])
    if len(ids) < 2:
        raise UserError(f"{path} is empty: a text needs at least two tokens, one to read and one to predict")
    return np.frombuffer(ids, dtype)


def check_sizes(sizes: CorpusSizes, expected: CorpusSizes | None) -> None:
    """Raises UserError naming every size that differs from what params.yaml expects."""
    if expected is None:
        return
    differences = [
        f"{name} is {size:,} instead of {getattr(expected, name):,}"
        for name, size in sizes
        if size != getattr(expected, name)
    ]
    if differences:
        raise UserError(f"{RAW}: {', '.join(differences)}: correct preprocess.expected in {PARAMS}, or make it null")


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.preprocess", description=__doc__).parse_args()
    expected = load_params().preprocess.expected
    vocabulary = build_vocabulary(RAW / "train.txt")
    ids = {split: encode(RAW / f"{split}.txt", vocabulary) for split in SPLITS}
    tokens = {f"{split}_tokens": len(ids[split]) for split in SPLITS}
    sizes = CorpusSizes(**tokens, vocabulary_size=len(vocabulary))
    check_sizes(sizes, expected)
    write_corpus(ids, vocabulary)
    with atomic_write(CORPUS_METRICS) as file:
        file.write(json.dumps(sizes.model_dump(), indent=2) + "\n")
    say(f"{PROCESSED}: {', '.join(f'{name} {size:,}' for name, size in sizes)}")


if __name__ == "__main__":
    run(main)
