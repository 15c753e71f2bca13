"""Text as words: one sentence per line, words separated by whitespace."""

import codecs
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from pipeline.project.console import UserError
from pipeline.settings.mistakes import shown

EOS = "<eos>"  # the end of a line
UNK = "<unk>"  # stands for every word outside the vocabulary
BLOCK = 2**18  # bytes read at a time, plus the rest of the last line
LONGEST_LINE = 2**27  # bytes: anything longer is not a sentence, and might never end


def read_lines(
    path: Path | None,
    remedy: str,
    on_bytes: Callable[[int], object] = lambda _: None,
    *,
    lower_case: bool = False,
) -> Iterator[list[str]]:
    """The words of each line of a file, or of stdin if path is None, with one line in memory at a time.

    A byte-order mark is not part of a word. Calls `on_bytes` with each line's length. Raises UserError, with the
    remedy, if the file is missing, binary or not UTF-8, has lines that end in CR alone, or contains the word `<eos>`.

    lower_case: convert every word to lower case
    """
    name = "stdin" if path is None else shown_path(path)
    with _reading(name, remedy), sys.stdin.buffer if path is None else path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            words = _words(line, f"{name}, line {number}", remedy, lower_case=lower_case)
            on_bytes(len(line))
            yield words


def read_tokens(
    path: Path,
    remedy: str,
    on_bytes: Callable[[int], object] = lambda _: None,
    *,
    lower_case: bool = False,
) -> Iterator[list[str]]:
    """The words of a file as from `read_lines`, with `<eos>` after each line, in successive parts of many lines.

    This is several times as fast. Calls `on_bytes` with each part's length in bytes.
    """
    name, number = shown_path(path), 1
    with _reading(name, remedy), path.open("rb") as file:
        while block := file.read(BLOCK) + file.readline(LONGEST_LINE):
            tokens = _plain_tokens(block, lower_case=lower_case)
            if tokens is None:
                tokens = []
                for place, line in enumerate(BytesIO(block), start=number):
                    where = f"{name}, line {place}"
                    tokens += [*_words(line[:LONGEST_LINE], where, remedy, lower_case=lower_case), EOS]
            number += block.count(b"\n")
            on_bytes(len(block))
            yield tokens


def _plain_tokens(block: bytes, *, lower_case: bool) -> list[str] | None:
    """The tokens of a block of complete lines; None if it has anything that requires checking line by line."""
    marks = (b"\0", codecs.BOM_UTF8)
    if block.count(b"\r") != block.count(b"\r\n") or len(block) >= LONGEST_LINE or any(mark in block for mark in marks):
        return None
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError:
        return None
    text = text.lower() if lower_case else text
    if EOS in text:
        return None
    return (text if text.endswith("\n") else text + "\n").replace("\n", f" {EOS} ").split()


def _words(line: bytes, where: str, remedy: str, *, lower_case: bool) -> list[str]:
    """The words of one line. Raises UserError."""
    if b"\0" in line or b"\r" in line or len(line) >= LONGEST_LINE:  # a quick test, as this is rare
        _refuse_binary_line(line, where, remedy)
    try:
        text = line.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError:
        _refuse_binary_line(line, where, remedy)
        raise UserError(f"{where}: not text in UTF-8: convert it to UTF-8") from None
    words = (text.lower() if lower_case else text).split()
    refuse_eos(words, where)
    return words


@contextmanager
def _reading(name: str, remedy: str) -> Iterator[None]:
    """Turn the system's errors from reading a file of this name into UserError."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{name} not found: {remedy}") from None
    except IsADirectoryError:
        raise UserError(f"{name} is a folder, not a file: {remedy}") from None
    except OSError as error:  # not a file name, a file used as a folder, a loop of links
        raise UserError(f"{name}: {error.strerror}: {remedy}") from None


def _refuse_binary_line(line: bytes, where: str, remedy: str) -> None:
    """Raise UserError if a line's bytes cannot be a sentence."""
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{where}: not text in UTF-8 but in UTF-16: convert it to UTF-8")
    if b"\0" in line:
        raise UserError(f"{where}: not text but binary data: {remedy}")
    if b"\r" in line.rstrip(b"\r\n"):  # read as whitespace, they would make the text one sentence
        raise UserError(f"{where}: has CR alone as line ends: convert them with `tr '\\r' '\\n'`")
    if len(line) >= LONGEST_LINE:
        raise UserError(f"{where}: longer than {LONGEST_LINE:,} bytes: write one sentence per line")


def shown_path(path: Path) -> str:
    """A path for a message, cut to a reasonable length."""
    text = os.fspath(path)
    return text if text.isprintable() and len(text) < 500 else shown(text)


def refuse_eos(words: Sequence[str], where: str) -> None:
    """Raise UserError at the word `<eos>`, which no text may contain."""
    if EOS in words:
        raise UserError(f"{where}: has the word {EOS}, which stands for line ends: remove it")
