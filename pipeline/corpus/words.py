"""Text as words: one sentence a line, words separated by whitespace."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.project.console import UserError

EOS = "<eos>"  # the end of a line
UNK = "<unk>"  # stands for every word outside the vocabulary


def read_lines(
    path: Path | None, remedy: str, on_bytes: Callable[[int], object] = lambda _: None
) -> Iterator[list[str]]:
    """The words of each line of a file, or of stdin where path is None, one line in memory at a time.

    Calls `on_bytes` with each line's length. Raises UserError, with the remedy, when the file is missing or binary, and
    when it is not in UTF-8 or has the word `<eos>`.
    """
    name = path or "stdin"
    number = 1
    try:
        with sys.stdin.buffer if path is None else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if b"\0" in line:
                    raise UserError(f"{name}, line {number}: not text but binary data: {remedy}")
                words = line.decode("utf-8").split()
                refuse_eos(words, f"{name}, line {number}")
                on_bytes(len(line))
                yield words
    except UnicodeDecodeError:
        raise UserError(f"{name}, line {number}: not text in UTF-8: convert it to UTF-8") from None
    except FileNotFoundError:
        raise UserError(f"{name} not found: {remedy}") from None
    except IsADirectoryError:
        raise UserError(f"{name} is a folder and not a file: {remedy}") from None


def refuse_eos(words: Sequence[str], where: str) -> None:
    """Raise UserError at the word `<eos>`, which no text may have."""
    if EOS in words:
        raise UserError(f"{where}: has the word {EOS}, which stands for line ends: remove it")
