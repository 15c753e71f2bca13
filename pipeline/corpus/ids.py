"""The corpus as token ids: how it lies in `data/processed`, written by `preprocess` and read by every later stage."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.corpus.words import EOS
from pipeline.project.console import UserError
from pipeline.project.files import PROCESSED, SPLITS, atomic_write

if TYPE_CHECKING:  # torch takes seconds to import and only `load_corpus` needs it
    from torch import Tensor

VOCABULARY = "vocabulary.txt"

_REMEDY = "run `dvc checkout data/processed`, or `dvc repro preprocess`"


@dataclass(frozen=True, eq=False)
class Corpus:
    """train, valid, test [length] int64, ids of tokens; vocabulary[id] is the word."""

    train: "Tensor"
    valid: "Tensor"
    test: "Tensor"
    vocabulary: tuple[str, ...]

    def splits(self) -> dict[str, "Tensor"]:
        """The ids of each split, by its name."""
        return {split: getattr(self, split) for split in SPLITS}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over ids and vocabulary: equal for equal corpora only."""
        digest = hashlib.sha256("\n".join(self.vocabulary).encode())
        for ids in (self.train, self.valid, self.test):
            digest.update(f"\n\n{len(ids)}\n".encode())
            digest.update(ids.numpy().astype("<i8", copy=False).data)
        return digest.hexdigest()


def id_dtype(vocabulary_size: int) -> np.dtype:
    """The smallest of the two types of id in use that holds every word's id."""
    return np.dtype(np.uint16 if vocabulary_size <= 2**16 else np.uint32)


def write_corpus(ids: dict[str, np.ndarray], vocabulary: list[str], folder: Path = PROCESSED) -> None:
    """Write each split's ids [length], uint16 or uint32, and the vocabulary, one word a line in the order of ids."""
    for split in SPLITS:
        with atomic_write(folder / f"{split}.npy", "wb") as file:
            np.save(file, ids[split], allow_pickle=False)
    with atomic_write(folder / VOCABULARY) as file:
        file.writelines(f"{word}\n" for word in vocabulary)


def load_corpus(folder: Path = PROCESSED) -> Corpus:
    """Read what `write_corpus` wrote. Raises UserError when a file is missing or damaged."""
    import torch

    vocabulary = _load_vocabulary(folder / VOCABULARY)
    ids = {split: torch.from_numpy(_load_ids(folder / f"{split}.npy", len(vocabulary))) for split in SPLITS}
    return Corpus(**ids, vocabulary=vocabulary)


def _load_vocabulary(path: Path) -> tuple[str, ...]:
    try:
        words = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path} not found: {_REMEDY}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is damaged (not text in UTF-8): {_REMEDY}") from None
    if words.pop() or "" in words or EOS not in words or len(set(words)) < len(words):
        raise UserError(f"{path} is damaged (needs distinct words, one a line, with {EOS}): {_REMEDY}")
    return tuple(words)


def _load_ids(path: Path, vocabulary_size: int) -> np.ndarray:
    """ids [length] int64."""
    try:
        ids = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} not found: {_REMEDY}") from None
    except Exception:  # NumPy fails in many ways on a file that is damaged
        raise UserError(f"{path} is damaged (no complete NumPy array): {_REMEDY}") from None
    if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype not in (np.uint16, np.uint32) or len(ids) < 2:
        raise UserError(f"{path} is damaged (needs a list of ids, uint16 or uint32): {_REMEDY}")
    if ids.max() >= vocabulary_size:
        raise UserError(f"{path} has the id {ids.max()}, but {VOCABULARY} has {vocabulary_size} words: {_REMEDY}")
    return ids.astype(np.int64)
