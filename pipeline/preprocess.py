"""Turn the text of data/raw into token ids in data/processed, using the vocabulary of the training split.

`preprocess.vocabulary` in params.yaml may bound the vocabulary: whatever falls out becomes `<unk>`.

Words are separated by whitespace. The end of each line becomes the token `<eos>`, even that of an empty line (which is
a single `<eos>`) and of a last line without a line break. Lines end in LF or CR LF; CR alone is refused. A byte-order
mark is dropped. Validation and test words that the training split lacks become `<unk>`.
"""

import argparse
from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.artifacts.code_digest import code_digest
from pipeline.artifacts.metrics import write_corpus_sizes
from pipeline.corpus.ids import id_dtype, write_corpus
from pipeline.corpus.vocabulary import Encoder, build_vocabulary, count_words
from pipeline.corpus.words import UNK, read_lines
from pipeline.project.console import UserError, progress, run, say
from pipeline.project.files import PARAMS, PROCESSED, RAW, SPLITS, sha256
from pipeline.project.inputs import FixedInputs, Inputs
from pipeline.project.params import load_params
from pipeline.project.schema import CorpusSizes, Preprocess

DOWNLOAD = "run `dvc repro download`"
CODE = Path(__file__).parent / "corpus"
PART_TOKENS = 2**16  # so many ids are in memory at once, and a line's more
# Neither an edit in data/raw, which DVC undoes, nor one in the source alone, which it does not notice, would do.
REMEDY = f"set preprocess.vocabulary of {PARAMS} to {{min_count: 2}}, which puts {UNK} in place of rare words"


def encode(path: Path, lines: Iterator[list[str]], vocabulary: list[str]) -> Iterator[np.ndarray]:
    """The ids of a text's lines, in successive parts [length] of the smallest type that holds them.

    Raises UserError, naming the path, for a word that is not in the vocabulary if `<unk>` is not either.
    """
    dtype = id_dtype(len(vocabulary))
    encoder, name = Encoder(vocabulary), str(path)
    ids = array(dtype.char)
    for number, words in enumerate(lines, start=1):
        ids.extend(encoder.ids(words, f"{name}, line {number}", REMEDY))
        ids.append(encoder.eos)
        if len(ids) >= PART_TOKENS:
            yield np.frombuffer(ids, dtype)
            ids = array(dtype.char)
    yield np.frombuffer(ids, dtype)


def check_sizes(sizes: CorpusSizes, expected: CorpusSizes | None) -> None:
    """Raises UserError naming every size that differs from the one expected in params.yaml."""
    if expected is None:
        return
    differences = [
        f"{name} is {size:,} instead of {getattr(expected, name):,}"
        for name, size in sizes
        if size != getattr(expected, name)
    ]
    if differences:
        raise UserError(f"{RAW}: {', '.join(differences)}: correct preprocess.expected in {PARAMS}, or make it null")


def inputs() -> Inputs:
    """Everything that the ids depend on, in its current state."""
    texts = [RAW / f"{split}.txt" for split in SPLITS]
    return {
        PARAMS.name: load_params().preprocess,
        RAW.as_posix(): [sha256(path) if path.exists() else None for path in texts],
        "pipeline/corpus": code_digest(CODE),
    }


def preprocess(settings: Preprocess) -> None:
    """Write ids, vocabulary and sizes. Raises UserError."""
    texts = {split: RAW / f"{split}.txt" for split in SPLITS}
    num_bytes = sum(path.stat().st_size for path in texts.values() if path.exists())
    words = settings.vocabulary
    with progress(2 * num_bytes, "preprocess", "B") as bar:
        read = partial(read_lines, remedy=DOWNLOAD, on_bytes=bar.update, lower_case=words.lower_case)
        counts = {split: count_words(read(path)) for split, path in texts.items()}
        for split, path in texts.items():
            if counts[split].total() < 2:
                raise UserError(f"{path} is empty: a text needs at least two tokens, one to read and one to predict")
        vocabulary = build_vocabulary(counts["train"], words.max_size, words.min_count)
        tokens = {f"{split}_tokens": counts[split].total() for split in SPLITS}
        sizes = CorpusSizes(**tokens, vocabulary_size=len(vocabulary))
        check_sizes(sizes, settings.expected)
        ids = {split: encode(path, read(path), vocabulary) for split, path in texts.items()}
        write_corpus(ids, vocabulary, lower_case=words.lower_case)
    write_corpus_sizes(sizes)
    say(f"{PROCESSED}: {', '.join(f'{name} {size:,}' for name, size in sizes)}")


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.preprocess", description=__doc__).parse_args()
    with FixedInputs("preprocess", inputs):
        preprocess(load_params().preprocess)


if __name__ == "__main__":
    run(main)
