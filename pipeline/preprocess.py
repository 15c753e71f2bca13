"""Turn the text of data/raw into token ids in data/processed, using the vocabulary of the training split.

Words are separated by whitespace. The end of each line becomes the token `<eos>`, even that of an empty line (which is
a single `<eos>`) and of a last line without a line break. Lines end in LF or CR LF; CR alone is refused. A byte-order
mark is dropped. Validation and test words that the training split lacks become `<unk>`.
"""

import argparse
from array import array
from pathlib import Path

import numpy as np

from pipeline.artifacts.code_digest import code_digest
from pipeline.artifacts.metrics import write_corpus_sizes
from pipeline.corpus.ids import id_dtype, write_corpus
from pipeline.corpus.vocabulary import Encoder, build_vocabulary
from pipeline.corpus.words import UNK, read_lines
from pipeline.project.console import UserError, run, say
from pipeline.project.files import PARAMS, PROCESSED, RAW, SPLITS, sha256
from pipeline.project.inputs import FixedInputs, Inputs
from pipeline.project.params import load_params
from pipeline.project.schema import CorpusSizes

DOWNLOAD = "run `dvc repro download`"
CODE = Path(__file__).parent / "corpus"


def encode(path: Path, vocabulary: list[str]) -> np.ndarray:
    """The text's ids [length], in the smallest type that holds them.

    Raises UserError for a word that is not in the vocabulary if `<unk>` is not either, and if the text is empty.
    """
    dtype = id_dtype(len(vocabulary))
    # Neither an edit in data/raw, which DVC undoes, nor one in the source alone, which it does not notice, would do.
    remedy = (
        f"write {UNK} for rare words in the source's text for train, and its SHA-256 then (`sha256sum` tells it) into"
        f" download.files.train.sha256 of {PARAMS}, and run `dvc repro`"
    )
    ids = array(dtype.char)
    encoder = Encoder(vocabulary)
    for number, words in enumerate(read_lines(path, DOWNLOAD), start=1):
        ids.extend(encoder.ids(words, f"{path}, line {number}", remedy))
        ids.append(encoder.eos)
    if len(ids) < 2:
        raise UserError(f"{path} is empty: a text needs at least two tokens, one to read and one to predict")
    return np.frombuffer(ids, dtype)


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


def preprocess(expected: CorpusSizes | None) -> None:
    """Write ids, vocabulary and sizes. Raises UserError."""
    vocabulary = build_vocabulary(read_lines(RAW / "train.txt", DOWNLOAD))
    ids = {split: encode(RAW / f"{split}.txt", vocabulary) for split in SPLITS}
    tokens = {f"{split}_tokens": len(ids[split]) for split in SPLITS}
    sizes = CorpusSizes(**tokens, vocabulary_size=len(vocabulary))
    check_sizes(sizes, expected)
    write_corpus(ids, vocabulary)
    write_corpus_sizes(sizes)
    say(f"{PROCESSED}: {', '.join(f'{name} {size:,}' for name, size in sizes)}")


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.preprocess", description=__doc__).parse_args()
    with FixedInputs("preprocess", inputs):
        preprocess(load_params().preprocess.expected)


if __name__ == "__main__":
    run(main)
