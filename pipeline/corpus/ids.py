"""The corpus as token ids in `data/processed`, written by `preprocess` and read by every later stage."""

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from pipeline.corpus.words import EOS
from pipeline.project.console import UserError
from pipeline.project.files import PROCESSED, SPLITS, atomic_write, sha256
from pipeline.settings.schema import CorpusSizes

if TYPE_CHECKING:  # torch takes seconds to import and only `load_corpus` needs it
    from torch import Tensor

VOCABULARY = "vocabulary.txt"
FILES = (*(f"{split}.npy" for split in SPLITS), VOCABULARY)
LOWER_CASE = "lower_case"  # an empty file that exists if words were converted to lower case

IDS_AT_A_TIME = 2**18

_REMEDY = "run `dvc checkout preprocess`, or `dvc repro --single-item --force preprocess`"


@dataclass(frozen=True, eq=False)
class Corpus:
    """train, valid, test [length], ids of tokens of any integer type; vocabulary[id] is the word.

    lower_case: whether the text was converted to lower case
    """

    train: "Tensor"
    valid: "Tensor"
    test: "Tensor"
    vocabulary: tuple[str, ...]
    lower_case: bool = False

    def splits(self) -> dict[str, "Tensor"]:
        """The ids of each split, by its name."""
        return {split: getattr(self, split) for split in SPLITS}

    def sizes(self) -> CorpusSizes:
        """The number of tokens in each split and of words in the vocabulary."""
        tokens = {f"{split}_tokens": len(ids) for split, ids in self.splits().items()}
        return CorpusSizes(**tokens, vocabulary_size=len(self.vocabulary))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ids and vocabulary, whatever the ids' type: only equal corpora have equal fingerprints."""
        digest = hashlib.sha256("\n".join(self.vocabulary).encode())
        for ids in (self.train, self.valid, self.test):
            digest.update(f"\n\n{len(ids)}\n".encode())
            for piece in ids.split(IDS_AT_A_TIME):
                digest.update(piece.numpy().astype("<i8", copy=False).data)
        return digest.hexdigest()


def id_dtype(vocabulary_size: int) -> np.dtype:
    """The smaller of the two id types that can hold every id."""
    return np.dtype(np.uint16 if vocabulary_size <= 2**16 else np.uint32)


def write_corpus(
    ids: Mapping[str, np.ndarray | Iterable[np.ndarray]],
    vocabulary: list[str],
    folder: Path = PROCESSED,
    *,
    lower_case: bool = False,
) -> None:
    """Write each split's ids [length], and the vocabulary, one word per line in the order of ids: all files, or none.

    ids: of each split, as one array or in successive parts, of which only one is in memory at a time
    lower_case: whether the text was converted to lower case
    """
    dtype = id_dtype(len(vocabulary))
    with ExitStack() as stack:
        for split in SPLITS:
            given = ids[split]
            parts = [given] if isinstance(given, np.ndarray) else given
            _write_ids(stack.enter_context(atomic_write(folder / f"{split}.npy", "wb")), parts, dtype)
        stack.enter_context(atomic_write(folder / VOCABULARY)).writelines(f"{word}\n" for word in vocabulary)
    (folder / LOWER_CASE).unlink(missing_ok=True)
    if lower_case:
        (folder / LOWER_CASE).touch()
    with atomic_write(_digest_file(folder)) as file:
        file.write(corpus_digests(folder))


def _write_ids(file: IO[bytes], parts: Iterable[np.ndarray], dtype: np.dtype) -> None:
    """Write an .npy file as `np.save` does, without holding the entire array in memory."""

    def write_header(length: int) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(file, header)

    write_header(0)
    length = 0
    for part in parts:
        file.write(np.asarray(part, dtype).data)
        length += len(part)
    file.seek(0)
    write_header(length)  # takes the same space: NumPy pads the header so that the length can grow


def load_corpus(folder: Path = PROCESSED) -> Corpus:
    """Load a corpus, its ids memory-mapped. Raises UserError if a file is missing or damaged."""
    import torch

    vocabulary = _load_vocabulary(folder / VOCABULARY)
    ids = {split: torch.from_numpy(_load_ids(folder / f"{split}.npy", len(vocabulary))) for split in SPLITS}
    digest_file = _digest_file(folder)  # a corpus of an earlier version has none
    if digest_file.exists() and digest_file.read_bytes() != corpus_digests(folder).encode():
        raise UserError(f"{folder} is damaged (its SHA-256 differ from those in {digest_file}): {_REMEDY}")
    return Corpus(**ids, vocabulary=vocabulary, lower_case=(folder / LOWER_CASE).exists())


def _digest_file(folder: Path) -> Path:
    """It is next to the folder, because trained models depend on the digest of the folder itself."""
    return folder.with_name(f"{folder.name}.sha256")


def corpus_digests(folder: Path = PROCESSED) -> str:
    """The SHA-256 of the corpus's files, one per line, in the format of `sha256sum --check`. Raises UserError."""
    if missing := [name for name in FILES if not (folder / name).exists()]:
        raise UserError(f"{folder / missing[0]} not found: {_REMEDY}")
    names = [*FILES, *([LOWER_CASE] if (folder / LOWER_CASE).exists() else [])]
    return "".join(f"{sha256(folder / name)}  {folder.name}/{name}\n" for name in names)


def _load_vocabulary(path: Path) -> tuple[str, ...]:
    try:
        words = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path} not found: {_REMEDY}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is damaged (not text in UTF-8): {_REMEDY}") from None
    if words.pop() or "" in words or EOS not in words or len(set(words)) < len(words):
        raise UserError(f"{path} is damaged (expected distinct words, one per line, with {EOS}): {_REMEDY}")
    return tuple(words)


def _load_ids(path: Path, vocabulary_size: int) -> np.ndarray:
    """ids [length], uint16 or uint32, memory-mapped."""
    try:
        ids = np.load(path, mmap_mode="c", allow_pickle=False)  # "c": like "r", without PyTorch's warning
    except FileNotFoundError:
        raise UserError(f"{path} not found: {_REMEDY}") from None
    except Exception:  # NumPy raises various errors for damaged files
        raise UserError(f"{path} is damaged (not a complete NumPy array): {_REMEDY}") from None
    if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype not in (np.uint16, np.uint32) or len(ids) < 2:
        raise UserError(f"{path} is damaged (expected a list of ids, uint16 or uint32): {_REMEDY}")
    if ids.max() >= vocabulary_size:
        raise UserError(f"{path} has the id {ids.max()}, but {VOCABULARY} has {vocabulary_size} words: {_REMEDY}")
    return ids
