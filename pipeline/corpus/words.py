"""Text as words: one sentence per line, words separated by whitespace."""

import codecs
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.project.console import UserError

EOS = "<eos>"  # the end of a line
UNK = "<unk>"  # stands for every word outside the vocabulary
LONGEST_LINE = 2**27  # bytes: anything longer is no sentence, and might never end


def read_lines(
    path: Path | None,
    remedy: str,
    on_bytes: Callable[[int], object] = lambda _: None,
    *,
    lower_case: bool = False,
) -> Iterator[list[str]]:
    """The words of each line of a file, or of stdin where path is None, one line in memory at a time.

    A byte-order mark is not part of a word. Calls `on_bytes` with each line's length. Raises UserError, with the
    remedy, if the file is missing, binary or not UTF-8, has lines that end in CR alone, or contains the word `<eos>`.

    lower_case: turn every word into lower case
    """
    name = "stdin" if path is None else shown_path(path)
    number = 1
    try:
        with sys.stdin.buffer if path is None else path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
                if b"\0" in line or b"\r" in line or len(line) == LONGEST_LINE:  # seldom; the rest would take time
                    _refuse_what_is_no_line(line, f"{name}, line {number}", remedy)
                text = line.removeprefix(codecs.BOM_UTF8).decode("utf-8")
                text = text.lower() if lower_case else text
                words = text.split()
                if EOS in text:
                    refuse_eos(words, f"{name}, line {number}")
                on_bytes(len(line))
                yield words
    except UnicodeDecodeError:
        _refuse_what_is_no_line(line, f"{name}, line {number}", remedy)
        raise UserError(f"{name}, line {number}: not text in UTF-8: convert it to UTF-8") from None
    except FileNotFoundError:
        raise UserError(f"{name} not found: {remedy}") from None
    except IsADirectoryError:
        raise UserError(f"{name} is a folder and not a file: {remedy}") from None
    except OSError as error:  # a text instead of a file name, a file taken for a folder, a loop of links
        raise UserError(f"{name}: {error.strerror}: {remedy}") from None


def _refuse_what_is_no_line(line: bytes, where: str, remedy: str) -> None:
    """Raise UserError if a line's bytes cannot be a sentence."""
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{where}: not text in UTF-8 but in UTF-16: convert it to UTF-8")
    if b"\0" in line:
        raise UserError(f"{where}: not text but binary data: {remedy}")
    if b"\r" in line.rstrip(b"\r\n"):  # read as whitespace, they would make the whole text one sentence
        raise UserError(f"{where}: has line ends of CR alone: convert them, as `tr '\\r' '\\n'` does")
    if len(line) == LONGEST_LINE:
        raise UserError(f"{where}: longer than {LONGEST_LINE:,} bytes: write one sentence per line")


def shown_path(path: Path) -> str:
    """A path for a message, cut to a reasonable length."""
    text = os.fspath(path)
    return text if text.isprintable() and len(text) < 500 else f"{text[:100]!r}..."


def refuse_eos(words: Sequence[str], where: str) -> None:
    """Raise UserError at the word `<eos>`, which no text may contain."""
    if EOS in words:
        raise UserError(f"{where}: has the word {EOS}, which stands for line ends: remove it")
