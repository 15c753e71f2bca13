"""Splitting your own text into training, validation and test text: three files, or one that is split by lines."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from pipeline.corpus.words import shown_path
from pipeline.project.console import UserError, counted
from pipeline.project.files import SPLITS, sha256

NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}


def find_texts(paths: Sequence[Path]) -> list[Path]:
    """One text, or those of the three splits in order, recognized by their names if possible.

    paths: one file, three files, or a folder of either

    Raises UserError.
    """
    files = list(paths)
    if len(files) == 1 and files[0].is_dir():
        files = sorted(path for path in files[0].iterdir() if path.is_file() and not path.name.startswith("."))
    if len(files) not in (1, 3):
        raise UserError(f"{len(files)} files: give one text (`cat` joins several), or three: train, valid and test")
    if len(files) == 1:
        if files[0].exists() and not files[0].is_file():
            raise UserError(f"{shown_path(files[0])} cannot be read twice: write the text to a file first")
        return files
    if missing := [path for path in files if not path.is_file()]:
        raise UserError(f"{shown_path(missing[0])} is not a file: correct its name")
    splits, names = [_split_of(path) for path in files], ", ".join(path.name for path in files)
    if set(splits) == set(SPLITS):
        files.sort(key=lambda path: SPLITS.index(_split_of(path) or ""))
    elif len(paths) == 1 or any(split not in (None, place) for split, place in zip(splits, SPLITS, strict=True)):
        raise UserError(f"{names}: which is which? Put train, valid, test in the names, or give them in this order")
    if len({sha256(path) for path in files}) < len(SPLITS):
        raise UserError(f"{names}: two of them are the same text: give three different ones")
    return files


def _split_of(path: Path) -> str | None:
    return next((NAMES[part] for part in re.split(r"[^a-z]+", path.name.lower()) if part in NAMES), None)


def divide(lines: Iterable[Sequence[str]], shares: Sequence[float], seed: int) -> Callable[[Sequence[str]], str]:
    """A function that returns the split of a line, given its words: equal lines are in the same split.

    lines: all lines of the text
    shares: relative sizes of the splits, met as closely as equal lines allow; no split is empty

    Raises UserError if there are fewer than three different lines.
    """

    def key(words: Sequence[str]) -> int:
        return int.from_bytes(hashlib.blake2b(f"{seed} {' '.join(words)}".encode(), digest_size=8).digest())

    keys, counts = np.unique(np.fromiter(map(key, lines), np.uint64), return_counts=True)
    if len(keys) < len(SPLITS):
        raise UserError(f"{counted(len(keys), 'different line')}: a text is split by lines, and needs at least three")
    ends = np.cumsum(shares) / sum(shares) * counts.sum()
    first, second = np.searchsorted(np.cumsum(counts), ends[:2]) + 1
    first = min(first, len(keys) - 2)
    second = min(max(second, first + 1), len(keys) - 1)
    valid_from, test_from = int(keys[first]), int(keys[second])
    return lambda words: SPLITS[(key(words) >= valid_from) + (key(words) >= test_from)]
