"""Fetch the corpus into data/raw, from the first source in params.yaml that delivers all of it with the right SHA-256.

A source is a folder or an archive (.tgz, .tar.gz or .zip), local (a relative path starts at the repository's root; `~`
and file:// work too) or at an http(s) address. A file in an archive is found by the end of its path; a name without a
folder is looked for in a folder named data. A source that fails in any way is skipped.

If params.yaml has null for a file's SHA-256, any content is accepted, and its SHA-256 is printed to be written there.
"""

import argparse
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import IO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
import urllib3

from pipeline.corpus.archives import CHUNK_BYTES, MAX_BYTES, BoundedStream, SourceError, is_archive, unpack
from pipeline.project.console import UserError, progress, run, say
from pipeline.project.files import PARAMS, RAW, SPLITS, atomic_write, project_root, sha256
from pipeline.project.inputs import FixedInputs
from pipeline.settings.params import load_params
from pipeline.settings.schema import Download, Files, SourceFile

DEADLINE_FACTOR = 20  # one address may take this many times `timeout_seconds`, which limits each single wait
MAX_REASON = 300  # characters

Outputs = dict[str, IO[bytes]]  # split -> the file for its text


def fetch(settings: Download) -> tuple[str, dict[str, int]]:
    """Write data/raw/{train,valid,test}.txt, all or none -> the source, and the bytes of each split.

    Raises UserError when no source delivers; existing files are kept.
    """
    reasons = []
    for source in settings.sources:
        try:
            with ExitStack() as stack:
                outputs = {split: stack.enter_context(atomic_write(RAW / f"{split}.txt", "wb")) for split in SPLITS}
                _deliver(source, settings, outputs)
                for output in outputs.values():  # so that a full disk fails before the first file appears
                    output.flush()
                    os.fsync(output.fileno())
                sizes = {split: output.tell() for split, output in outputs.items()}
            return source, sizes
        except Exception as error:  # whatever is wrong with this source, the next may work
            if isinstance(error, OSError) and _is_destination(Path(str(error.filename))):
                raise  # another source could not be written either
            reasons.append(f"{source}: {_reason(error, settings.timeout_seconds)}")
            say(f"skipped {reasons[-1]}")
    raise UserError("\n  ".join(["no source delivers the corpus", *reasons, *_by_hand(settings)]))


def _deliver(source: str, settings: Download, outputs: Outputs) -> None:
    """Copy the three files of a source to the outputs. Raises whatever goes wrong."""
    files = {file.name: (file, outputs[split]) for split, file in _by_split(settings.files)}
    if is_archive(source):
        with _open(source, settings.timeout_seconds) as body:
            unpack(source, body, files, lambda name, read: _copy(read, *files[name]))
        return
    for name, (file, output) in files.items():
        with _open(f"{source.rstrip('/')}/{name}", settings.timeout_seconds) as body:
            _copy(body.read, file, output)


@contextmanager
def _open(location: str, timeout_seconds: float) -> Iterator[BoundedStream]:
    """The content of a local file or at an address, as a stream of limited size."""
    if _is_address(location):
        with _open_address(location, timeout_seconds) as body:
            yield body
        return
    path = project_root() / _path(location)
    if not path.is_file():
        raise SourceError(f"no file {path}")
    with open(path, "rb") as file:
        yield BoundedStream(file.read)


def _copy(read: Callable[[int], bytes], file: SourceFile, output: IO[bytes]) -> None:
    """Copy a stream to its end, in chunks.

    Raises SourceError if its SHA-256 is not the file's or, if that is not known, if it is obviously not text.
    """
    digest = hashlib.sha256()
    start = b""
    while chunk := read(CHUNK_BYTES):
        start = start or chunk
        digest.update(chunk)
        output.write(chunk)
    is_page = start.lstrip()[:5].lower() in (b"<!doc", b"<html")
    if digest.hexdigest() != file.sha256 and (file.sha256 or is_page or not start):
        kind = "a web page" if is_page else "not the expected file"
        raise SourceError(f"{file.name} is {kind} ({output.tell():,} bytes, SHA-256 {digest.hexdigest()})")


@contextmanager
def _open_address(address: str, timeout_seconds: float) -> Iterator[BoundedStream]:
    """The body at an http(s) address as a stream of limited size and time, with a progress bar."""
    deadline = time.monotonic() + DEADLINE_FACTOR * timeout_seconds
    with closing(_request(address, timeout_seconds)) as response:
        name = PurePosixPath(address).name
        if response.status_code != requests.codes.ok:
            raise SourceError(f"HTTP status {response.status_code} for {name}")
        total = response.raw.length_remaining or 0
        if total > MAX_BYTES:
            raise SourceError(f"{name} has more than {MAX_BYTES:,} bytes")
        with progress(total, name, "B") as bar:

            def read(size: int) -> bytes:
                if time.monotonic() > deadline:
                    raise _too_slow(timeout_seconds)
                # One receive per call, so that the deadline is checked; not decoded, so that an archive stays gzip.
                chunk = response.raw.read1(size, decode_content=False)
                bar.update(len(chunk))
                return chunk

            yield BoundedStream(read)


def _request(address: str, timeout_seconds: float) -> requests.Response:
    """Request an address -> the response, its body not read yet.

    In a thread, because a socket's timeout limits neither name resolution nor a server that trickles its headers.
    """
    answer: Future[requests.Response] = Future()

    def ask() -> None:
        try:
            headers = {"Accept-Encoding": "identity"}
            answer.set_result(requests.get(address, headers=headers, timeout=timeout_seconds, stream=True))
        except Exception as error:
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()
    done, _ = wait([answer], DEADLINE_FACTOR * timeout_seconds)
    if not done:
        raise _too_slow(timeout_seconds)
    return answer.result()


def _too_slow(timeout_seconds: float) -> SourceError:
    return SourceError(f"too slow: not finished after {DEADLINE_FACTOR * timeout_seconds:g} s")


def _is_address(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _is_destination(path: Path) -> bool:
    """Whether a path is data/raw, inside it, or one of its parents."""
    return RAW in (path, *path.parents) or path in RAW.parents


def _path(location: str) -> Path:
    """The path of a local source; `~` and file:// are understood. Raises SourceError."""
    parts = urlsplit(location)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(url2pathname(parts.path))
    if "://" in location:
        raise SourceError("neither a folder nor an address with http, https or file")
    try:
        return Path(location).expanduser()
    except RuntimeError:
        raise SourceError("no such user here has a home folder") from None


def _by_split(files: Files) -> list[tuple[str, SourceFile]]:
    return [(split, getattr(files, split)) for split in SPLITS]


def _reason(error: BaseException, timeout_seconds: float) -> str:
    """What went wrong, in one line: the cause inside the layers of requests, such as `Connection refused`."""
    while isinstance(error, (requests.RequestException, urllib3.exceptions.HTTPError)):
        cause = error.__cause__ or error.__context__
        if cause is None:
            break
        error = cause
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_seconds:g} s"
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    printable = "".join(filter(str.isprintable, " ".join(text.split())))  # it may contain a server's words
    return printable[:MAX_REASON] or type(error).__name__


def _by_hand(settings: Download) -> list[str]:
    """What to do if no source works."""
    local = [source for source in settings.sources if "://" not in source or source.startswith("file:")]
    folder = next((source for source in local if not is_archive(source)), None)
    place = f"the folder {folder}" if folder else f"a folder, name it first in download.sources of {PARAMS}"
    lines = [
        f"{file.name} with SHA-256 {file.sha256}" if file.sha256 else file.name for _, file in _by_split(settings.files)
    ]
    return [f"fix that, or put the files by hand into {place}, then run `dvc repro`:", *lines]


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.download", description=__doc__).parse_args()
    with FixedInputs("download", lambda: {PARAMS.name: load_params().download}):
        settings = load_params().download
        source, sizes = fetch(settings)
    say(f"{RAW}: {', '.join(f'{split} {size:,}' for split, size in sizes.items())} bytes from {source}")
    for split, file in _by_split(settings.files):
        if file.sha256 is None:
            pinned = f"{{name: {file.name}, sha256: {sha256(RAW / f'{split}.txt')}}}"
            say(f"SHA-256 not checked: to have it checked from now on, write under download.files  {split}: {pinned}")


if __name__ == "__main__":
    run(main)
