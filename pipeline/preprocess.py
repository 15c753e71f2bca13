"""Turn the text of data/raw into token ids in data/processed, using the vocabulary of the training split.

`preprocess.vocabulary` in params.yaml may limit the vocabulary: all other words become `<unk>`.

Words are separated by whitespace. The end of each line becomes the token `<eos>`, even that of an empty line (which is
a single `<eos>`) and of a last line without a line break. Lines end in LF or CR LF; CR alone is refused. A byte-order
mark is dropped. Validation and test words that are not in the training split become `<unk>`.
"""

import argparse
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile

from pipeline.artifacts.code_digest import code_digest
from pipeline.artifacts.metrics import write_corpus_sizes
from pipeline.corpus.ids import write_corpus
from pipeline.corpus.numbered import NumberedText
from pipeline.corpus.vocabulary import build_vocabulary
from pipeline.corpus.words import UNK, read_tokens, shown_path
from pipeline.project.console import UserError, progress, run, say
from pipeline.project.files import PARAMS, PROCESSED, RAW, SPLITS, sha256
from pipeline.project.inputs import FixedInputs, Inputs
from pipeline.settings.params import load_params
from pipeline.settings.schema import CorpusSizes, Preprocess

DOWNLOAD = "run `dvc repro download`"
CODE = Path(__file__).parent / "corpus"
# Editing data/raw would not help, as DVC undoes that, nor would editing the source, which DVC does not notice.
REMEDY = f"set preprocess.vocabulary of {PARAMS} to {{min_count: 2}}, which puts {UNK} in place of rare words"


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
        raise UserError(f"{RAW}: {', '.join(differences)}: correct preprocess.expected in {PARAMS}, or set it to null")


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
    paths = {split: RAW / f"{split}.txt" for split in SPLITS}
    num_bytes = sum(path.stat().st_size for path in paths.values() if path.exists())
    words = settings.vocabulary
    folder = PROCESSED.parent  # on the same disk as the ids, as the default may be in memory
    folder.mkdir(exist_ok=True)
    with progress(num_bytes, "preprocess", "B") as bar, ExitStack() as stack:
        texts = {}
        for split, path in paths.items():
            parts = read_tokens(path, DOWNLOAD, bar.update, lower_case=words.lower_case)
            file = stack.enter_context(TemporaryFile(dir=folder))
            texts[split] = NumberedText(shown_path(path), parts, file)
            if texts[split].counts.total() < 2:
                raise UserError(f"{path} is empty: a text needs at least two tokens, one to read and one to predict")
        vocabulary = build_vocabulary(texts["train"].counts, words.max_size, words.min_count)
        tokens = {f"{split}_tokens": text.counts.total() for split, text in texts.items()}
        sizes = CorpusSizes(**tokens, vocabulary_size=len(vocabulary))
        check_sizes(sizes, settings.expected)
        ids = {split: text.ids(vocabulary, REMEDY) for split, text in texts.items()}
        write_corpus(ids, vocabulary, lower_case=words.lower_case)
    write_corpus_sizes(sizes)
    say(f"{PROCESSED}: {', '.join(f'{name} {size:,}' for name, size in sizes)}")


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.preprocess", description=__doc__).parse_args()
    with FixedInputs("preprocess", inputs):
        preprocess(load_params().preprocess)


if __name__ == "__main__":
    run(main)
